package e2e

import (
	"fmt"
	"slices"
	"testing"

	"github.com/mendian/mendian/test/world"
)

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
			s.Fault("wxa/get_store_list", 1, tc.fault)
			if a := s.client.Do("GET", "/v1/stores?source=live", nil); a.Status != tc.status || a.Code() != tc.code {
				t.Errorf("%v: %d %s", tc.fault, a.Status, a.Body)
			}
		}
		s.client.Do("GET", "/v1/stores?source=live", nil).Want(200)
	})
}
