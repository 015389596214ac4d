package faults

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mendian/mendian/test/world"
)

// What a release can't be told to do: no name of a failpoint is in it, none of a
// breach of the protocol, and nothing that shortens the schedule of the
// reconciler. The fault build has all
// of them, so the search itself is known to work.
func TestReleaseHasNoFailpoints(t *testing.T) {
	t.Parallel()
	names := []string{"GATEWAY_FAILPOINT", "GATEWAY_FAULT_SCHEDULE", "GATEWAY_FAULT_SEGMENT", "GATEWAY_SABOTAGE"}
	at := regexp.MustCompile(`fault\.At(?:Attempt|Wire)?\((?:[^"]+, )?"([^"]+)"(?:, "([^"]+)")?\)`)
	breach := regexp.MustCompile(`fault\.Sabotaged\("([^"]+)"\)`)
	var points, breaches []string
	for _, dir := range []string{"../../internal", "../../cmd"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			for _, m := range at.FindAllStringSubmatch(string(source), -1) {
				points = append(points, m[1])
				if m[2] != "" {
					points = append(points, m[2])
				}
			}
			for _, m := range breach.FindAllStringSubmatch(string(source), -1) {
				breaches = append(breaches, m[1])
			}
			if n := bytes.Count(source, []byte("fault.At")); n != len(at.FindAllString(string(source), -1)) {
				t.Errorf("%s: a failpoint whose name this test can't read", path)
			}
			if n := bytes.Count(source, []byte("fault.Sabotaged")); n != len(breach.FindAllString(string(source), -1)) {
				t.Errorf("%s: a breach whose name this test can't read", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(points)
	if len(points) < 10 || len(breaches) < 5 {
		t.Fatalf("found only %v and %v", points, breaches)
	}
	for i := range points[1:] {
		if points[i] == points[i+1] {
			t.Errorf("two failpoints are called %s", points[i])
		}
	}
	release, err := os.ReadFile(world.Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	faulty, err := os.ReadFile(world.Binary(t, "faults"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Concat(names, points, breaches) {
		if bytes.Contains(release, []byte(name)) {
			t.Errorf("the release binary holds %q", name)
		}
		if !bytes.Contains(faulty, []byte(name)) {
			t.Errorf("the fault build lacks %q", name)
		}
	}
}
