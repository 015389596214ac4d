package isolation

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/test/world"
)

// sameNames: what both tenants call alike is each one's own.
func (m *matrix) sameNames(t *testing.T) {
	t.Helper()
	m.sameNumber(t)
	list := m.b.Do("GET", "/v1/stores?client_reference="+sharedReference, nil).Want(http.StatusOK)
	if err := shows(list, m.marks, ""); err != nil || list.Get("data", "1", "id") == "" || list.Get("data", "2", "id") != "" {
		t.Errorf("by reference: %v, %s", err, list.Body)
	}
	m.sameIdempotencyKey(t)
	m.sameFile(t)
}

// sameFile: both tenants upload the same file, and each is given a media id of
// its own. That A's has expired is nothing to B.
func (m *matrix) sameFile(t *testing.T) {
	t.Helper()
	upload := func(c *world.Client, s *side) string {
		form := world.Form{File: onePixel, Texts: map[string]string{"purpose": "certificate"}}
		return c.For(s.merchants[0]).Do("POST", "/v1/media/temporary", form).Want(http.StatusCreated).Get("media_id")
	}
	mine, its := upload(m.a, &m.two.a), upload(m.b, &m.two.b)
	if mine == its || upload(m.a, &m.two.a) != mine || upload(m.b, &m.two.b) != its {
		t.Errorf("the same file: %s of A, %s of B", mine, its)
	}
	m.Exec(`UPDATE media_files SET expires_at = now() WHERE wechat_id = $1`, mine)
	store := m.two.b.sim.NewStore(int(time.Now().UnixNano() % 10_000))
	store["qualification_media_ids"] = []string{mine}
	m.b.For(m.two.b.merchants[0]).Do("POST", "/v1/stores?validate_only=true", store).Want(http.StatusOK)
	m.a.For(m.two.a.merchants[0]).Do("POST", "/v1/stores?validate_only=true", store).WantProblem(http.StatusUnprocessableEntity, "media_expired")
	m.sums = m.checksums(t, m.tables, m.two.a.id)
}

// sameNumber: attack 21. Both tenants have a store, and goods, of the same
// number of WeChat.
func (m *matrix) sameNumber(t *testing.T) {
	t.Helper()
	for _, x := range []struct {
		list, member, number string
		kind                 kind
		has, hasNot          int // of each tenant's merchants
	}{
		{"/v1/stores", "poi_id", sharedPOI, stores, 0, 1},
		{"/v1/goods", "goods_id", sharedGoods, goods, 3, 2},
	} {
		tried(t, "21")
		ids := map[*side]string{}
		for s, c := range map[*side]*world.Client{&m.two.a: m.a, &m.two.b: m.b} {
			one := x.list + "/" + x.number
			for _, path := range []string{one, one + "?source=live"} {
				a := c.For(s.merchants[x.has]).Do("GET", path, nil).Want(http.StatusOK)
				if a.Get(x.member) != x.number || a.Get("merchant_id") != s.merchants[x.has] || !slices.Contains(s.ids[x.kind], a.Get("id")) {
					t.Errorf("%s of %s: %s", path, s.merchants[x.has], a.Body)
				}
				ids[s] = a.Get("id")
			}
			list := c.Do("GET", x.list+"?"+x.member+"="+x.number, nil).Want(http.StatusOK)
			if list.Get("data", "0", "id") != ids[s] || list.Get("data", "1", "id") != "" {
				t.Errorf("list by number: %s", list.Body)
			}
			c.For(s.merchants[x.hasNot]).Do("GET", one, nil).Want(http.StatusNotFound)
		}
		if ids[&m.two.a] == ids[&m.two.b] {
			t.Errorf("both tenants have %s %s", x.kind, ids[&m.two.a])
		}
	}
}

// sameIdempotencyKey: attack 26. B repeats A's request with A's key, and then
// another merchant of B does.
func (m *matrix) sameIdempotencyKey(t *testing.T) {
	t.Helper()
	body := m.two.b.sim.NewStore(int(time.Now().UnixNano() % 10_000))
	key := "key-of-both-" + rand.Text()
	mine := m.a.For(m.two.a.merchants[0])
	copied := m.two.a.sim.NewStore(int(time.Now().UnixNano() % 10_000))
	first := mine.Do("POST", "/v1/stores", copied, "Idempotency-Key", key).Want(http.StatusAccepted)
	m.marks = append(m.marks, strings.TrimPrefix(first.Get("id"), "sto_"), strings.TrimPrefix(first.Header.Get("Operation-Id"), "op_"))
	m.sums = m.checksums(t, m.tables, m.two.a.id)
	calls := m.calls(&m.two.a)
	seen := map[string]bool{first.Get("id"): true}
	for _, merchant := range m.two.b.merchants[:2] {
		tried(t, "24, 26")
		other := m.two.b.sim.NewStore(int(time.Now().UnixNano() % 10_000))
		a := m.b.For(merchant).Do("POST", "/v1/stores", other, "Idempotency-Key", key).Want(http.StatusAccepted)
		if a.Header.Get("Idempotency-Replayed") != "" || seen[a.Get("id")] {
			t.Errorf("not executed by itself: %v %s", a.Header, a.Body)
		}
		if err := shows(a, m.marks, ""); err != nil {
			t.Error(err)
		}
		seen[a.Get("id")] = true
		again := m.b.For(merchant).Do("POST", "/v1/stores", other, "Idempotency-Key", key).Want(http.StatusAccepted)
		if again.Header.Get("Idempotency-Replayed") != "true" || again.Get("id") != a.Get("id") {
			t.Errorf("B's own repetition: %v %s", again.Header, again.Body)
		}
		// With A's body, which is another one: A's fingerprint is not B's either.
		m.b.For(merchant).Do("POST", "/v1/stores", body, "Idempotency-Key", key).WantProblem(http.StatusUnprocessableEntity, "idempotency_key_reused")
	}
	m.nothingHappened(t, "the same Idempotency-Key")
	if now := m.calls(&m.two.a); now != calls {
		t.Errorf("%d calls of WeChat were made for A", now-calls)
	}
}
