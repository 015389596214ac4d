// Package e2e drives the built binary as its users do: REST, the command
// line, a browser, and WeChat.
package e2e
