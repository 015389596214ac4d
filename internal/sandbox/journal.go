package sandbox

import (
	"net/http"
	"time"
	"unicode/utf8"
)

const (
	journalSize  = 20_000
	journalReply = 64 << 10  // longer replies are cut
	journalBytes = 128 << 20 // of uploads; the oldest requests go when there are more
)

// journal is the last requests received, verbatim, in memory.
type journal struct {
	last    int64
	uploads int             // bytes of them in entries
	entries []*journalEntry // oldest first
}

type journalEntry struct {
	Seq     int64       `json:"seq"`
	Time    time.Time   `json:"time"`
	Method  string      `json:"method"`
	Path    string      `json:"path"`
	Query   string      `json:"query"`
	Headers http.Header `json:"headers"`
	Body    string      `json:"body"`
	// BodyBase64 is the body instead, where it is no text: an upload.
	BodyBase64 []byte `json:"body_base64,omitempty"`
	// Status is 0 until answered; of a dropped reply it is what would have been sent.
	Status  int    `json:"status"`
	Reply   string `json:"reply"`
	Dropped bool   `json:"dropped,omitempty"`
	Faulted bool   `json:"faulted,omitempty"`
}

func (j *journal) open(r *http.Request, body []byte) *journalEntry {
	j.last++
	e := &journalEntry{
		Seq: j.last, Time: time.Now(), Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery,
		Headers: r.Header.Clone(),
	}
	e.Headers.Set("Host", r.Host)
	if utf8.Valid(body) {
		e.Body = string(body)
	} else {
		e.BodyBase64 = body
	}
	j.entries = append(j.entries, e)
	j.uploads += len(e.BodyBase64)
	drop := 0
	if len(j.entries) > journalSize+journalSize/10 {
		drop = len(j.entries) - journalSize
	}
	for i, old := range j.entries {
		if i >= drop && j.uploads <= journalBytes {
			drop = i
			break
		}
		j.uploads -= len(old.BodyBase64)
	}
	if drop > 0 {
		j.entries = append([]*journalEntry(nil), j.entries[drop:]...)
	}
	return e
}

func (e *journalEntry) close(a answer, f *fault) {
	e.Status, e.Reply = a.status, string(a.body[:min(len(a.body), journalReply)])
	e.Faulted = f != nil
	e.Dropped = f != nil && f.DropReply
}

// since is the requests after that number, of one path if it is not empty.
func (j *journal) since(seq int64, path string) []journalEntry {
	out := []journalEntry{}
	for _, e := range j.entries[max(0, len(j.entries)-journalSize):] {
		if e.Seq > seq && (path == "" || trimSlash(path) == trimSlash(e.Path)) {
			out = append(out, *e)
		}
	}
	return out
}
