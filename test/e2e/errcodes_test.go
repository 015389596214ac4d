package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/mendian/mendian/api"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/test/world"
)

// WeChat answers a call with each errcode that api/errors.yaml gives a meaning
// there and whose code the operation lists, so that a new row of that table is
// covered the day it is written down. The calls for stores stand here, those
// for other resources in the files of these.

// listedCodes are the x-error-codes of each operation.
func listedCodes(t *testing.T) map[string][]string {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(api.Spec)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			codes, _ := op.Extensions["x-error-codes"].([]any)
			for _, c := range codes {
				out[op.OperationID] = append(out[op.OperationID], fmt.Sprint(c))
			}
		}
	}
	return out
}

// A catalogue is api/errors.yaml, from which the gateway's own tables are
// generated: what each errcode of WeChat means.
type catalogue struct {
	WeChat []errcodeRow `yaml:"wechat"`
}

type errcodeRow struct {
	Errcode  int
	Families []string
	Endpoint string
	Code     string
	Class    string
	Pointers []string
}

func readCatalogue(t *testing.T) (c catalogue) {
	t.Helper()
	text, err := os.ReadFile("../../api/errors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &c); err != nil || len(c.WeChat) < 50 {
		t.Fatalf("%d rows, %v", len(c.WeChat), err)
	}
	return c
}

// meant are the rows that count for an endpoint: its own before those of its
// family, these before those of all.
func (c catalogue) meant(endpoint string) []errcodeRow {
	family, _, _ := strings.Cut(endpoint, ".")
	rank := func(r errcodeRow) int {
		switch {
		case r.Endpoint != "" && r.Endpoint != endpoint:
			return 0
		case r.Endpoint != "":
			return 3
		case slices.Contains(r.Families, family):
			return 2
		case len(r.Families) == 0:
			return 1
		}
		return 0
	}
	best := map[int]errcodeRow{}
	for _, r := range c.WeChat {
		if old, ok := best[r.Errcode]; rank(r) > 0 && (!ok || rank(r) > rank(old)) {
			best[r.Errcode] = r
		}
	}
	var out []errcodeRow
	for _, r := range c.WeChat {
		if b, ok := best[r.Errcode]; ok && cmp.Equal(b, r) {
			out = append(out, r)
		}
	}
	return out
}

func (catalogue) status(code string) int { return problem.KindOf(code).Status() }

// An errcodeCall is an operation and the call of WeChat behind it.
type errcodeCall struct {
	operation, endpoint, path string
	write                     bool
	except                    []int // errcodes that mean something of their own here
	do                        func(c *world.Client) *world.Answer
}

// answersEveryErrcode lets WeChat answer each errcode whose code the operation
// lists: the answer has that code, and the field at fault.
func answersEveryErrcode(t *testing.T, w *world.World, c *world.Client, call errcodeCall) {
	t.Helper()
	catalogue, listed := readCatalogue(t), listedCodes(t)
	for _, row := range catalogue.meant(call.endpoint) {
		// What ends the merchant's authorisation, or its token, is for other tests.
		if !slices.Contains(listed[call.operation], row.Code) || row.Class == "token_rejected" || row.Errcode == 42007 ||
			slices.Contains(call.except, row.Errcode) {
			continue
		}
		times := 1
		if again := row.Errcode == -1 && !call.write; again {
			times = attempts
		}
		w.Fault(call.path, times, map[string]any{"errcode": row.Errcode, "errmsg": "said so rid: 6543abcd-12345678-0a0b0c0d"})
		a := call.do(c)
		if times > 1 {
			w.Control("DELETE", "faults", nil, nil)
		}
		// An upload whose end nobody knows has failed: the second one does no harm.
		if upload := strings.HasPrefix(call.endpoint, "media."); row.Class == "ambiguous" && call.write && !upload {
			a.Want(202)
			if a.Get("operation", "status") != "reconciling" || a.Header.Get("Operation-Id") == "" || !strings.Contains(a.Header.Get("Link"), "/v1/operations/op_") {
				a.Fail("an unproven outcome is not told")
			}
			continue
		}
		a.WantProblem(catalogue.status(row.Code), row.Code)
		if a.Get("upstream", "errcode") != strconv.Itoa(row.Errcode) || a.Get("upstream", "endpoint") != call.endpoint ||
			a.Get("upstream", "errmsg") != "said so" || a.Get("upstream", "rid") != "6543abcd-12345678-0a0b0c0d" {
			a.Fail("WeChat's words")
		}
		if (a.Get("operation_id") != "null") != call.write {
			a.Fail("operation_id")
		}
		for i, pointer := range row.Pointers {
			if a.Get("errors", strconv.Itoa(i), "pointer") != pointer {
				a.Fail("the field at fault is not " + pointer)
			}
		}
		if waits := a.Header.Get("Retry-After"); (waits != "") != (a.Status == 429 || a.Status == 503) {
			a.Fail("Retry-After is " + waits)
		}
		if call.write {
			op := c.Do("GET", "/v1/operations/"+a.Get("operation_id"), nil).Want(200)
			if op.Get("status") != "failed" || op.Get("error", "code") != row.Code || op.Get("attempts", "0", "errcode") != strconv.Itoa(row.Errcode) {
				op.Fail("the operation of errcode " + strconv.Itoa(row.Errcode))
			}
		}
	}
}

// attempts is more often than a read that gets no answer is made, also by the
// background.
const attempts = 20

// Every errcode of WeChat whose code an operation lists is answered with that
// code, and with the field at fault.
func TestStoreErrcodes(t *testing.T) {
	t.Parallel()
	s := openShop(t, 95)
	pois, _ := walk(s.client, "/v1/stores?status=active&limit=100", "poi_id")
	next := func() string { // a store that no open operation holds
		poi := pois[0]
		pois = pois[1:]
		return poi
	}
	one := next()
	var legacy struct {
		IDs []string `json:"poi_ids"`
	}
	s.Control("POST", "accounts/"+s.appid+"/legacy-stores", map[string]int{"count": 95}, &legacy)
	s.Eventually("the legacy stores are known", func() error {
		if ids, _ := walk(s.client, "/v1/legacy-stores?source=live&limit=100", "id"); len(ids) < 95 || slices.Contains(ids, "<nil>") {
			return fmt.Errorf("%v", ids)
		}
		return nil
	})
	nextLegacy := func() string {
		poi := legacy.IDs[0]
		legacy.IDs = legacy.IDs[1:]
		return poi
	}
	// What they say of a store that is to be deleted is that it was.
	deleted := map[string][]int{"deleteStore": {46005, 65115, 65116}, "deleteLegacyStore": {46005, 65115, 65116}}
	for _, call := range []struct {
		operation, endpoint, path string
		write                     bool
		do                        func(s *shop) *world.Answer
	}{
		{"listStores", "store.list", "wxa/get_store_list", false, func(s *shop) *world.Answer { return s.client.Do("GET", "/v1/stores?source=live", nil) }},
		{"getStore", "store.get", "wxa/get_store_info", false, func(s *shop) *world.Answer { return s.client.Do("GET", "/v1/stores/"+one+"?source=live", nil) }},
		{"listMapPOIs", "map_poi.search", "wxa/search_map_poi", false, func(s *shop) *world.Answer {
			return s.client.Do("GET", "/v1/map-pois?keyword=x&district_id=440105", nil)
		}},
		{"createMapPOI", "map_poi.create", "wxa/create_map_poi", true, func(s *shop) *world.Answer {
			*s.n++
			return s.client.Do("POST", "/v1/map-pois", documentsPlace("name", fmt.Sprint("place ", *s.n)))
		}},
		{"createStore", "store.add", "wxa/add_store", true, func(s *shop) *world.Answer { return s.client.Do("POST", "/v1/stores", s.fresh()) }},
		{"updateStore", "store.update", "wxa/update_store", true, func(s *shop) *world.Answer {
			return s.client.Do("PATCH", "/v1/stores/"+next(), map[string]string{"contact_phone": "020-7654321"})
		}},
		{"deleteStore", "store.delete", "wxa/del_store", true, func(s *shop) *world.Answer { return s.client.Do("DELETE", "/v1/stores/"+next(), nil) }},
		{"listLegacyStores", "legacy_store.list", "cgi-bin/poi/getpoilist", false, func(s *shop) *world.Answer {
			return s.client.Do("GET", "/v1/legacy-stores?source=live", nil)
		}},
		{"getLegacyStore", "legacy_store.get", "cgi-bin/poi/getpoi", false, func(s *shop) *world.Answer {
			return s.client.Do("GET", "/v1/legacy-stores/"+legacy.IDs[0]+"?source=live", nil)
		}},
		{"createLegacyStore", "legacy_store.add", "cgi-bin/poi/addpoi", true, func(s *shop) *world.Answer {
			return s.client.Do("POST", "/v1/legacy-stores", legacyStore())
		}},
		{"updateLegacyStore", "legacy_store.update", "cgi-bin/poi/updatepoi", true, func(s *shop) *world.Answer {
			return s.client.Do("PATCH", "/v1/legacy-stores/"+nextLegacy(), map[string]string{"phone": "020-7654321"})
		}},
		{"deleteLegacyStore", "legacy_store.delete", "cgi-bin/poi/delpoi", true, func(s *shop) *world.Answer {
			return s.client.Do("DELETE", "/v1/legacy-stores/"+nextLegacy(), nil)
		}},
	} {
		t.Run(call.operation, func(t *testing.T) {
			s := s.on(t)
			answersEveryErrcode(t, s.World, s.client, errcodeCall{call.operation, call.endpoint, call.path, call.write, deleted[call.operation], func(*world.Client) *world.Answer {
				if len(pois) < 2 {
					t.Fatal("seed more stores")
				}
				return call.do(s)
			}})
		})
	}

	t.Run("a store that is gone was deleted", func(t *testing.T) {
		s := s.on(t)
		for _, path := range []string{"/v1/stores/", "/v1/legacy-stores/"} {
			next, call := next, "wxa/del_store"
			if path == "/v1/legacy-stores/" {
				next, call = nextLegacy, "cgi-bin/poi/delpoi"
			}
			for _, errcode := range deleted["deleteStore"] {
				poi := next()
				s.Fault(call, 1, map[string]any{"errcode": errcode})
				s.client.Do("DELETE", path+poi, nil).Want(204)
				if a := s.client.Do("GET", path+poi, nil).Want(200); a.Get("status") != "deleted" {
					t.Errorf("errcode %d: %s", errcode, a.Body)
				}
			}
		}
	})

	t.Run("reads that nobody can read", func(t *testing.T) {
		s := s.on(t)
		for _, tc := range []struct {
			fault  map[string]any
			status int
			code   string
		}{
			{map[string]any{"errcode": 99999}, 502, "wechat_unknown_error"},
			{map[string]any{"drop_reply": true}, 502, "wechat_unreachable"},
			{map[string]any{"http_status": 502}, 502, "wechat_unreachable"},
			{map[string]any{"body": "<html>busy</html>"}, 502, "wechat_unreachable"},
			{map[string]any{"truncate_to": 20}, 502, "wechat_unreachable"},
		} {
			s.Fault(listPath, attempts, tc.fault)
			if a := s.client.Do("GET", liveStores, nil); a.Status != tc.status || a.Code() != tc.code {
				t.Errorf("%v: %d %s", tc.fault, a.Status, a.Body)
			}
			s.Control("DELETE", "faults", nil, nil)
		}
		s.client.Do("GET", "/v1/stores?source=live", nil).Want(200)
	})
}
