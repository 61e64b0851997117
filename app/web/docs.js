// Shows the OpenAPI document with Swagger UI.

import { ROOT } from "./http.js";

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const theme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", theme);
theme();
window.SwaggerUIBundle({
	url: `${ROOT}/openapi.json`,
	dom_id: "#swagger-ui",
	deepLinking: true,
	tryItOutEnabled: true,
	validatorUrl: null,
});
