"""Where the bytes of a store lie: addresses, back ends, locks."""
