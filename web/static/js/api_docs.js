// Swagger UI over our own document; what is tried goes with the session of whoever is logged in.

const csrf = document.querySelector('meta[name="csrf"]').content;

globalThis.SwaggerUIBundle({
  url: "/api/v1/openapi.json",
  dom_id: "#swagger",
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
  requestInterceptor(request) {
    request.headers["X-CSRF-Token"] = csrf;
    return request;
  },
});
