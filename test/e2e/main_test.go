// Package e2e drives the built binary as its users do: REST, the command
// line, a browser, and WeChat.
//
// Every operation and every code of the contract is produced by some test, here
// or elsewhere: `make test` says which were not (internal/handlers/spectest/speccheck).
package e2e
