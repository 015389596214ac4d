package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/api"
)

// The committed files are what errors.yaml gives.
func TestGeneratedFilesAreFresh(t *testing.T) {
	t.Parallel()
	files, err := generate(api.Errors)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is stale; run `go generate ./api` (-want +got):\n%s", name, diff)
		}
	}
}

func TestGenerateRefuses(t *testing.T) {
	t.Parallel()
	const ok = "codes: {x: {kind: internal, title: [a, b], detail: [a, b]}}\n"
	for name, data := range map[string]string{
		"unknown kind":      "codes: {x: {kind: odd, title: [a, b], detail: [a, b]}}",
		"no Chinese":        "codes: {x: {kind: internal, title: [a, ''], detail: [a, b]}}",
		"unknown where":     "codes: {x: {kind: internal, where: there, title: [a, b], detail: [a, b]}}",
		"unknown member":    ok + "also: 1",
		"unlisted code":     ok + "wechat: [{errcode: 1, code: y, class: refused, retry: never}]",
		"unknown class":     ok + "wechat: [{errcode: 1, code: x, class: odd, retry: never}]",
		"two rows":          ok + "wechat: [{errcode: 1, code: x, class: refused, retry: never}, {errcode: 1, code: x, class: refused, retry: fix}]",
		"envelope, retry":   ok + "envelopes: [{family: store, code: x, class: refused, retry: odd}]",
		"code listed twice": "codes:\n  x: {kind: internal, title: [a, b], detail: [a, b]}\n  x: {kind: internal, title: [a, b], detail: [a, b]}",
	} {
		if _, err := generate([]byte(data)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
