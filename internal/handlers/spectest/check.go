package spectest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/mendian/mendian/api"
	"github.com/mendian/mendian/internal/problem"
)

// Check reads what recorders wrote and returns what is wrong, sorted: every
// violation; every operation of which no 2xx was seen; every code that the
// contract lists and nobody produced; and exceptions that name neither.
// exceptions maps an operationId or a code to the reason why its absence is
// accepted.
func Check(files []string, exceptions map[string]string) ([]string, error) {
	doc, err := openapi3.NewLoader().LoadFromData(api.Spec)
	if err != nil {
		return nil, err
	}
	var wrong []string
	succeeded, codes := map[string]bool{}, map[string]bool{}
	for _, name := range files {
		sightings, err := read(name)
		if err != nil {
			return nil, err
		}
		for _, s := range sightings {
			if s.Violation != "" {
				wrong = append(wrong, fmt.Sprintf("%s: %s", s.Operation, s.Violation))
			}
			if s.Status >= 200 && s.Status < 300 {
				succeeded[s.Operation] = true
			}
			if s.Status == problem.KindOf(s.Code).Status() {
				codes[s.Code] = true
			}
		}
	}
	known := map[string]bool{}
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			known[op.OperationID] = true
			if !succeeded[op.OperationID] && exceptions[op.OperationID] == "" {
				wrong = append(wrong, op.OperationID+": no test saw it succeed")
			}
			listed, _ := op.Extensions["x-error-codes"].([]any)
			for _, c := range listed {
				code := fmt.Sprint(c)
				if !known[code] && !codes[code] && exceptions[code] == "" {
					wrong = append(wrong, code+": listed in x-error-codes, and no test saw it")
				}
				known[code] = true
			}
		}
	}
	for name, reason := range exceptions {
		switch {
		case !known[name]:
			wrong = append(wrong, name+": an exception for what the contract does not have")
		case reason == "":
			wrong = append(wrong, name+": an exception without a reason")
		}
	}
	slices.Sort(wrong)
	return slices.Compact(wrong), nil
}

func read(name string) ([]Sighting, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it is only read
	var out []Sighting
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var s Sighting
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, s)
	}
	return out, lines.Err()
}
