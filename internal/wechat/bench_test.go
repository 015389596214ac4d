package wechat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// compact is a document's answer as WeChat sends it, without the blanks.
func compact(b *testing.B, x exchange) []byte {
	b.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, []byte(mended(b, x.reply, x.mend...))); err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

// What it costs to read a reply: to find out whether it is a success, and what
// it holds.
func BenchmarkReply(b *testing.B) {
	all := examples()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if x := all[name]; x.reply != "" && x.read != nil {
			benchmarkReply(b, name, x.endpoint, x.read, compact(b, x))
		}
	}
	store, legacy := compact(b, all["get_store_info"]), compact(b, all["getpoi"])
	benchmarkReply(b, "50 stores", GetStoreList, as[GetStoreListReply], page(b, store))
	benchmarkReply(b, "50 legacy stores", GetPoiList, as[GetPoiListReply], page(b, legacy))
}

// page is a list of the largest size whose items are all one's.
func page(b *testing.B, one []byte) []byte {
	b.Helper()
	var reply struct {
		Business json.RawMessage `json:"business"`
	}
	if err := json.Unmarshal(readable(one), &reply); err != nil || reply.Business == nil {
		b.Fatalf("no business in %s: %v", one, err)
	}
	items := strings.TrimSuffix(strings.Repeat(string(reply.Business)+",", MaxStorePage), ",")
	return fmt.Appendf(nil, `{"errcode":0,"errmsg":"ok","business_list":[%s],"total_count":%d}`, items, MaxStorePage)
}

func benchmarkReply(b *testing.B, name string, e *Endpoint, decode func(*Endpoint, Reply) (any, error), body []byte) {
	b.Run(name, func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			r := Reply{Status: http.StatusOK, Body: body}
			r.said = read(e, r) // as Do does
			if _, err := Classify(e, r); err != nil {
				b.Fatal(err)
			}
			if _, err := decode(e, r); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	all := examples()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if x := all[name]; x.request != nil {
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Encode(x.request); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// A whole call of a list over a kept connection, and all that is asked of its
// reply on the way to a caller. The server's part is in it.
func BenchmarkCall(b *testing.B) {
	body := compact(b, examples()["get_store_list"])
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write(body)
	}))
	defer server.Close()
	client := NewClient(server.URL, nil)
	defer client.Close()
	b.ReportAllocs()
	for b.Loop() {
		reply, err := client.Do(b.Context(), GetStoreList, AuthorizerToken("token"), nil, []byte(`{"offset":0,"limit":20}`))
		if err != nil {
			b.Fatal(err)
		}
		for range 4 { // the circuit, the token, the retries, the caller
			if _, err := Classify(GetStoreList, reply); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := Decode[GetStoreListReply](GetStoreList, reply); err != nil {
			b.Fatal(err)
		}
	}
}
