// Package migrations holds the numbered SQL that makes and changes the
// schema, embedded so that one binary carries it. A file that has landed is
// never edited: a change is a new number.
package migrations

import "embed"

// FS holds the files in goose's format.
//
//go:embed *.sql
var FS embed.FS
