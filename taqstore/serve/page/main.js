// Boots the explorer.
const [, store = ""] = location.pathname.split("/");
document.getElementById("main").textContent = store || "taqstore";
