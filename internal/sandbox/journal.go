package sandbox

import (
	"net/http"
	"time"
)

const (
	journalSize  = 20_000
	journalReply = 64 << 10 // longer replies are cut
)

// journal is the last requests received, verbatim, in memory.
type journal struct {
	last    int64
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
		Headers: r.Header.Clone(), Body: string(body),
	}
	e.Headers.Set("Host", r.Host)
	if j.entries = append(j.entries, e); len(j.entries) > journalSize+journalSize/10 {
		j.entries = append([]*journalEntry(nil), j.entries[len(j.entries)-journalSize:]...)
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
