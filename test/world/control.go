package world

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Control calls the simulator's control API (internal/sandbox/README.md) and
// reads the answer into v, if not nil.
func (w *World) Control(method, path string, body, v any) {
	w.t.Helper()
	js, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	req, err := http.NewRequest(method, w.SandboxURL+"/_sandbox/"+path, bytes.NewReader(js))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		w.t.Fatalf("sandbox %s %s = %d %v: %s", method, path, resp.StatusCode, err, b)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal(b, v); err != nil {
		w.t.Fatalf("sandbox %s %s: %v: %s", method, path, err, b)
	}
}

// A Request is one that reached the simulator.
type Request struct {
	Seq     int64          `json:"seq"`
	Time    string         `json:"time"`
	Method  string         `json:"method"`
	Path    string         `json:"path"`
	Query   string         `json:"query"`
	Headers map[string]any `json:"headers"`
	Body    string         `json:"body"`
	Bytes   []byte         `json:"body_base64"` // the body of an upload
	Status  int            `json:"status"`
	Reply   string         `json:"reply"`
}

// Journal is what reached the simulator at path, oldest first.
func (w *World) Journal(path string) []Request {
	w.t.Helper()
	var j struct{ Requests []Request }
	w.Control("GET", "journal?path="+path, nil, &j)
	return j.Requests
}

// WaitCalls waits until n requests have reached the simulator at path.
func (w *World) WaitCalls(path string, n int) {
	w.t.Helper()
	w.Eventually("call "+path, func() error {
		if got := len(w.Journal(path)); got != n {
			return fmt.Errorf("%d calls, want %d", got, n)
		}
		return nil
	})
}

type (
	// An Effect is a write that the simulator executed.
	Effect struct {
		Kind  string `json:"kind"`
		AppID string `json:"appid"`
		ID    string `json:"id"`
		Key   string `json:"key"`
	}
	// An Issued is an id that it gave.
	Issued struct {
		Type  string `json:"type"`
		ID    string `json:"id"`
		AppID string `json:"appid"`
		Key   string `json:"key"`
	}
)

// Truth is the simulator's own log of what it did.
func (w *World) Truth() (ids []Issued, effects []Effect) {
	w.t.Helper()
	var truth struct {
		IDs     []Issued
		Effects []Effect
	}
	w.Control("GET", "truth", nil, &truth)
	return truth.IDs, truth.Effects
}

// Hold keeps pushes and automatic audits back, or lets them go.
func (w *World) Hold(on bool) {
	w.t.Helper()
	w.Control("POST", "pushes", map[string]bool{"hold": on}, nil)
}

// Fault makes the next n calls of path go wrong.
func (w *World) Fault(path string, n int, what map[string]any) {
	w.t.Helper()
	body := map[string]any{"path": path, "n": n}
	for k, v := range what {
		body[k] = v
	}
	w.Control("POST", "faults", body, nil)
}

// Audits lists the simulator's audits.
func (w *World) Audits() []map[string]any {
	w.t.Helper()
	var a struct{ Audits []map[string]any }
	w.Control("GET", "audits", nil, &a)
	return a.Audits
}

// Decide decides an audit as WeChat's people would.
func (w *World) Decide(kind, id, decision, reason string) {
	w.t.Helper()
	w.Control("POST", "audits/"+kind+"/"+id, map[string]string{"decision": decision, "reason": reason}, nil)
}
