// Package secret keeps secrets secret: text that can't be printed by
// accident, and sealing for what must lie in the database or on disk.
//
// Nothing here may ever return plaintext through an error, a log value or a
// formatting verb.
package secret

import (
	"fmt"
	"log/slog"
)

const redacted = "[REDACTED]"

// Text is a secret string. Every way of printing it shows [REDACTED]; only
// Reveal gives it out, at the one place that needs it.
type Text struct{ s string }

// NewText wraps s.
func NewText(s string) Text { return Text{s} }

// Reveal returns the secret. Callers put it on the wire or into a cipher and nowhere else.
func (t Text) Reveal() string { return t.s }

// IsZero reports whether there is nothing to hide.
func (t Text) IsZero() bool { return t.s == "" }

func (Text) String() string               { return redacted }
func (Text) GoString() string             { return redacted }
func (Text) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Text) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (Text) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (Text) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(redacted)) }

// UnmarshalText takes a secret in, as configuration and request bodies need.
func (t *Text) UnmarshalText(b []byte) error { t.s = string(b); return nil }
