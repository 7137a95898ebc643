"""The sections of the page, one question a module; each turns evidence into blocks and writes nothing."""
