package api

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/mendian/mendian/internal/problem"
)

func codesOf(op *openapi3.Operation) []string {
	var codes []string
	list, _ := op.Extensions["x-error-codes"].([]any)
	for _, c := range list {
		codes = append(codes, fmt.Sprint(c))
	}
	return codes
}

// An operation lists every code that it can produce, and describes exactly
// the statuses of these codes.
func TestErrorCodes(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	each(load(t), func(name string, op *openapi3.Operation) {
		codes := codesOf(op)
		if len(codes) == 0 {
			t.Errorf("%s: no x-error-codes", name)
		}
		want := map[string]bool{}
		for _, c := range codes {
			if !problem.Known(c) {
				t.Errorf("%s: code %s is not in errors.yaml", name, c)
			}
			used[c] = true
			want[strconv.Itoa(problem.KindOf(c).Status())] = true
		}
		for status := range op.Responses.Map() {
			if status >= "400" && !want[status] {
				t.Errorf("%s: status %s is described, and no code has it", name, status)
			}
			delete(want, status)
		}
		for status := range want {
			t.Errorf("%s: a code has status %s, which is not described", name, status)
		}
		for _, c := range []string{"token_missing", "token_invalid", "invalid_parameter", "rate_limited", "internal", "overloaded"} {
			if !slices.Contains(codes, c) {
				t.Errorf("%s: %s is missing: every operation can answer it", name, c)
			}
		}
		for media, code := range map[string]string{"application/json": "malformed_json", "multipart/form-data": "malformed_form"} {
			if op.RequestBody != nil && op.RequestBody.Value.Content[media] != nil && !slices.Contains(codes, code) {
				t.Errorf("%s: has a body, and does not list %s", name, code)
			}
		}
	})
	for _, c := range problem.Listed() {
		if !used[c] {
			t.Errorf("code %s is in errors.yaml, and no operation lists it", c)
		}
	}
}
