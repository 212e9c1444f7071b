// What a store holds of measured costs: asked before parts ask for what may not be there.
import { get, path } from "./api.js";

/** `{sensitivities, scores, variants}` of a store, as it is now. */
function measured(store) {
  return get(path("stores", store ?? "", "plan", "measured"));
}

/** Whether linears were quantized one at a time. */
export async function hasLinears(store) {
  return (await measured(store)).sensitivities.some(({ unit }) => unit === "linear");
}

/** Whether variants were run beside the model as it is. */
export async function hasVariants(store) {
  return (await measured(store)).variants.length > 0;
}
