// Put before the page's own script: what goes wrong is written down.
window.wrong = [];
addEventListener("error", (event) => wrong.push(String(event.message || event.target.outerHTML)), true);
addEventListener("unhandledrejection", (event) => wrong.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => wrong.push(`policy: ${event.violatedDirective} ${event.blockedURI}`));
for (const kind of ["error", "warn"]) console[kind] = (...words) => wrong.push(words.join(" "));
