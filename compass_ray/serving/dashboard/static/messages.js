// The words of the page in its language. A message without a translation stays English.

export const language = document.documentElement.lang || "en";
const catalogue = await fetch(new URL(`messages/${language}.json`, import.meta.url)).then((found) => (found.ok ? found.json() : {})).catch(() => ({}));

// The message in the page's language. `{name}` is replaced by the value of that name.
export function t(message, values = {}) {
  const text = Object.hasOwn(catalogue, message) ? catalogue[message] : message;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

export const list = (parts) => new Intl.ListFormat(language, { type: "unit", style: "short" }).format(parts);
