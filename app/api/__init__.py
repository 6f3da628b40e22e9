"""The API process: application, OpenAPI document, health. Other front doors (dialects, MCP, console) belong here."""
