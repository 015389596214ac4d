package api

//go:generate go tool -modfile=../tools/oapi.mod oapi-codegen --config=oapi-server.yaml openapi.yaml
//go:generate go tool -modfile=../tools/oapi.mod oapi-codegen --config=oapi-client.yaml openapi.yaml
//go:generate go run ./errgen
