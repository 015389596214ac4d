// Package api holds the REST contract: openapi.yaml, written by hand and the
// single source of the server's types, its router, its request validation,
// the Go client and the Swagger page; and errors.yaml, the catalogue of every
// error code and of what each WeChat errcode means.
//
// It must never hold code that serves requests: internal/handlers does that.
package api

import _ "embed"

// Spec is openapi.yaml as it is served at /openapi.yaml.
//
//go:embed openapi.yaml
var Spec []byte

// Errors is errors.yaml, from which api/errgen writes Go tables and the page
// docs/reference/errors.md.
//
//go:embed errors.yaml
var Errors []byte
