// Numbers and times (in the browser's time zone) as text. A missing value is a dash. Digits are 0 to 9, as in commands and logs.

import { language } from "./messages.js";

const NONE = "–";
const LOCALE = `${language}-u-nu-latn`;
const two = (value) => String(value).padStart(2, "0");

export const text = (value) => (value === null || value === undefined || value === "" ? NONE : String(value));

export function number(value, digits = 0) {
  if (typeof value !== "number" || !Number.isFinite(value)) return NONE;
  return value.toLocaleString(LOCALE, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export const percent = (share) => (typeof share === "number" ? `${number(100 * share, share < 0.1 ? 1 : 0)} %` : NONE);

export function milliseconds(value) {
  if (typeof value !== "number") return NONE;
  return value < 1000 ? `${number(value, value < 10 ? 1 : 0)} ms` : `${number(value / 1000, 2)} s`;
}

const names = language === "en" ? null : new Intl.DisplayNames([language], { type: "language" });

// A language in the page's language; the service's own name in English, or where the browser knows none.
export const languageName = (code, name) => names?.of(code) ?? name ?? code;

export function timeOfDay(seconds) {
  if (typeof seconds !== "number") return NONE;
  const when = new Date(seconds * 1000);
  return [when.getHours(), when.getMinutes(), when.getSeconds()].map(two).join(":");
}

export function moment(seconds) {
  if (typeof seconds !== "number") return NONE;
  const when = new Date(seconds * 1000);
  return `${[when.getFullYear(), when.getMonth() + 1, when.getDate()].map(two).join("-")} ${timeOfDay(seconds)}`;
}
