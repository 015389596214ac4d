package e2e

import "maps"

// absent stands for a member that a body is to be without; nil is null.
type absent struct{}

// with is a copy of a body with changes: name, value, name, value.
func with(body map[string]any, changes ...any) map[string]any {
	out := maps.Clone(body)
	for i := 0; i+1 < len(changes); i += 2 {
		name := changes[i].(string)
		if out[name] = changes[i+1]; out[name] == (absent{}) {
			delete(out, name)
		}
	}
	return out
}
