// Package e2e drives the built binary as its users do: REST, the command
// line, a browser, and WeChat.
package e2e

import (
	"os"
	"testing"

	"github.com/mendian/mendian/test/world"
)

func TestMain(m *testing.M) {
	code := m.Run()
	world.Clean()
	os.Exit(code)
}
