// Shows the OpenAPI document with Swagger UI.

import { darkScheme } from "./dom.js";
import { ROOT } from "./http.js";

const theme = () => document.documentElement.classList.toggle("dark-mode", darkScheme.matches);
darkScheme.addEventListener("change", theme);
theme();
window.SwaggerUIBundle({
	url: `${ROOT}/openapi.json`,
	dom_id: "#swagger-ui",
	deepLinking: true,
	tryItOutEnabled: true,
	validatorUrl: null,
});
