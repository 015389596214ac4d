package isolation

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/test/world"
)

// Whatever tenant B does with what is tenant A's, it is told 404, as of
// something that exists nowhere; lists and filters show it nothing of A; and
// its writes change no row of A and call nobody.
//
// The same matrix runs three times: as in production; as a role that bypasses
// row-level security, so that the queries' predicates alone must hold; and
// with every `tenant_id = $n` taken out of the queries, so that row-level
// security alone must. Each run first proves its sabotage by a query that
// leaks on purpose. The last run takes both guards away, and the matrix must
// see it.
func TestTenantsAreApart(t *testing.T) {
	t.Parallel()
	w := newTwo(t)
	bypass := w.bypassingRole(t)
	for _, run := range []struct {
		name  string
		role  string
		noSQL bool
	}{
		{name: "BothGuards"},
		{name: "NoRowLevelSecurity", role: bypass},
		{name: "NoPredicates", noSQL: true},
		{name: "NeitherGuard", role: bypass, noSQL: true},
	} {
		t.Run(run.name, func(t *testing.T) {
			cfg := postgres.Config{DSN: w.DSN, Role: run.role}
			if run.noSQL {
				cfg.Rewrite = withoutPredicates
			}
			n := start(t, setup{db: cfg, keyset: w.Env["GATEWAY_KEYSET_FILE"], wechat: w.wechat.URL, public: w.PublicURL})
			defer n.showsNoSecret(t, w.World, w.b.sim)
			w.prove(t, n.db, run.role != "", run.noSQL)
			m := newMatrix(t, w, n)
			if run.role != "" && run.noSQL {
				m.leaks(t)
				return
			}
			m.warm(t)
			m.routes(t)
			m.lists(t)
			m.bodies(t)
			m.sameNames(t)
			m.pushes(t)
			if run.name == "BothGuards" {
				m.partner(t, n, 1, 0) // stores
				m.partner(t, n, 3, 2) // goods
				for _, op := range m.tenantRoutes() {
					if strings.Contains(op.path, "{") && !m.restricted[op.id] {
						t.Errorf("%s: not tried with a restricted key", op.id)
					}
				}
			}
		})
	}
}

// A matrix is one run's.
type matrix struct {
	*two
	a, b       *world.Client
	marks      []string // of A, not of B
	cursors    map[string][]string
	tables     []string
	operations []operation
	sums       map[string]string // of A's rows
	n          int               // cells tried
	restricted map[string]bool   // operations that were tried with a restricted key
}

func newMatrix(t *testing.T, w *two, n *node) *matrix {
	t.Helper()
	m := &matrix{two: w, a: n.client(w.a.key, ""), b: n.client(w.b.key, ""), tables: w.tenantTables(t), operations: operationsOf(t), cursors: map[string][]string{}, restricted: map[string]bool{}}
	m.two.a.ids, m.two.b.ids = w.owned(t, &w.a), w.owned(t, &w.b)
	m.marks = w.marks(t, &w.a, &w.b)
	return m
}

// tenantRoutes are the operations that a tenant's key reaches.
func (m *matrix) tenantRoutes() []operation {
	return slices.DeleteFunc(slices.Clone(m.operations), func(o operation) bool { return o.admin() })
}

// warm lets A read everything of its own, so that every id is known to be good
// and lies in the process's caches, and collects A's cursors.
func (m *matrix) warm(t *testing.T) {
	t.Helper()
	for _, op := range m.tenantRoutes() {
		if op.writes() {
			continue
		}
		if op.has("query", "cursor") {
			for _, merchant := range []string{"", m.two.a.acting(op)} {
				if merchant != "" && !op.has("header", "Merchant-Id") {
					continue
				}
				path := m.two.a.within(op) + "?limit=1"
				page := m.a.For(merchant).Do("GET", path, nil).Want(http.StatusOK)
				if next := page.Get("next_cursor"); page.Get("has_more") == "true" {
					m.cursors[op.id] = append(m.cursors[op.id], next)
				}
				if merchant != "" && op.has("query", "source") {
					m.cursors[op.id] = append(m.cursors[op.id], m.a.For(merchant).Do("GET", path+"&"+op.live().Encode(), nil).Want(http.StatusOK).Get("next_cursor"))
				}
			}
			if len(m.cursors[op.id]) == 0 {
				t.Fatalf("%s gives A no cursor", op.id)
			}
		}
		for _, p := range op.parameters {
			if meanings[p.key()].how == plain || beside(op, p) {
				continue
			}
			for value, k := range m.valuesFor(op, p, &m.two.a, nil) {
				if !p.pattern.MatchString(value) {
					continue
				}
				var last *world.Answer
				if !slices.ContainsFunc(m.cells(op, p, k, value, &m.two.a, &m.two.a), func(x cell) bool {
					last = m.try(m.a, x)
					return last.Status == http.StatusOK || m.refusedByWeChat(last)
				}) {
					t.Errorf("%s: A itself can't use its %s %s: %d %s", op.id, k, value, last.Status, last.Body)
				}
			}
		}
	}
	// What A's live reads made known is written behind.
	var before map[string]string
	world.Eventually(t, 10*time.Second, "A's rows are at rest", func() error {
		m.sums = before
		before = m.checksums(t, m.tables, m.two.a.id)
		if diff := gocmp.Diff(m.sums, before); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

// refusedByWeChat: a Mini Program has no stores, districts or categories, an
// Official Account no goods.
func (m *matrix) refusedByWeChat(a *world.Answer) bool { return a.Code() == "permission_set_missing" }

// routes is the matrix proper: every operation, every parameter that names
// something of a tenant, everything of A's.
func (m *matrix) routes(t *testing.T) {
	t.Helper()
	calls := m.calls(&m.two.a)
	for _, op := range m.tenantRoutes() {
		own := m.calls(&m.two.b)
		before := m.n
		for _, p := range op.parameters {
			if meanings[p.key()].how == plain {
				continue
			}
			for value, k := range m.valuesFor(op, p, &m.two.a, &m.two.b) {
				other := nobodys(k, value)
				twins := m.cells(op, p, k, other, &m.two.b, &m.two.a)
				for i, x := range m.cells(op, p, k, value, &m.two.b, &m.two.a) {
					m.n++
					if meanings[p.key()].how == bound {
						tried(t, "28")
					}
					tried(t, "18")
					a := m.try(m.b, x)
					if err := x.want(a); err != nil {
						t.Errorf("%s: %v", op.id, err)
					}
					if err := shows(a, m.marks, x.String()); err != nil {
						t.Errorf("%s: %v", op.id, err)
					}
					if other == "" {
						continue
					}
					// As of something that exists nowhere: nothing can be told apart.
					if twin := m.try(m.b, twins[i]); plainly(a, value) != plainly(twin, other) {
						t.Errorf("%s: %s is answered\n%s\nand nobody's %s\n%s", op.id, x, a.Body, other, twin.Body)
					}
				}
			}
		}
		if op.writes() {
			m.nothingHappened(t, op.id)
			if now := m.calls(&m.two.b); now != own {
				t.Errorf("%s: %d calls of WeChat were made", op.id, now-own)
			}
		}
		if strings.Contains(op.path, "{") && m.n == before {
			t.Errorf("%s: not one cell was tried", op.id)
		}
	}
	m.nothingHappened(t, "all of it")
	if now := m.calls(&m.two.a); now != calls {
		t.Errorf("%d calls of WeChat were made for A", now-calls)
	}
	if m.n < 300 {
		t.Errorf("%d cells, which can't be all", m.n)
	}
	t.Logf("%d cells", m.n)
}

// nothingHappened compares A's rows with what they were.
func (m *matrix) nothingHappened(t *testing.T, after string) {
	t.Helper()
	now := m.checksums(t, m.tables, m.two.a.id)
	if diff := gocmp.Diff(m.sums, now); diff != "" {
		t.Errorf("%s: rows of A changed:\n%s", after, diff)
		m.sums = now
	}
}

// calls counts what reached a tenant's WeChat.
func (m *matrix) calls(s *side) int { return len(s.sim.Journal("")) }

// lists reads every list that there is as B, from both sources, whole.
func (m *matrix) lists(t *testing.T) {
	t.Helper()
	for _, op := range m.tenantRoutes() {
		if op.writes() || strings.Contains(op.path, "{") {
			continue
		}
		query := url.Values{}
		var variants []url.Values
		for _, p := range op.parameters {
			switch {
			case p.in != "query":
			case p.required:
				query.Set(p.name, meanings[p.key()].always)
			case p.name == "limit":
				query.Set(p.name, "100")
			case p.name == "status":
				for _, v := range p.values {
					variants = append(variants, url.Values{p.name: {fmt.Sprint(v)}})
				}
			case p.name == "source":
				variants = append(variants, op.live())
			}
		}
		for _, extra := range append(variants, nil) {
			for _, merchant := range append([]string{""}, m.two.b.merchants...) {
				if merchant != "" && !op.has("header", "Merchant-Id") {
					continue
				}
				q := url.Values{}
				for _, from := range []url.Values{query, extra} {
					for name, v := range from {
						q[name] = v
					}
				}
				if op.has("query", "after") {
					tried(t, "90")
				}
				a := m.b.For(merchant).Do("GET", op.path+"?"+q.Encode(), nil)
				if err := shows(a, m.marks, ""); err != nil {
					t.Errorf("%s: %v", op.id, err)
				}
				if ok := a.Status == http.StatusOK || a.Code() == "merchant_required" || m.refusedByWeChat(a); !ok || a.Get("has_more") == "true" {
					t.Errorf("%s: %d %s", op.id, a.Status, a.Body)
				}
			}
		}
	}
	m.nothingHappened(t, "lists")
}

// bodies puts what is A's into the members of bodies that name it.
func (m *matrix) bodies(t *testing.T) {
	t.Helper()
	for _, op := range m.tenantRoutes() {
		for _, member := range op.members {
			meaning := bodyMeanings[op.id+" "+member]
			if meaning.how == plain {
				continue
			}
			for _, id := range m.two.a.ids[meaning.names[0]] {
				example, err := json.Marshal(op.body)
				if err != nil {
					t.Fatal(err)
				}
				var body map[string]any
				if err := json.Unmarshal(example, &body); err != nil {
					t.Fatal(err)
				}
				delete(body, "expires_at") // the example's lies in the past
				for _, v := range []any{id, []string{id}, []string{m.two.b.merchants[0], id}} {
					body[member] = v
					x := cell{method: op.method, path: op.path, body: body, status: http.StatusNotFound, codes: noSuchThing}
					a := m.try(m.b, x)
					if a.Code() == "validation_failed" {
						continue // not of this type
					}
					if err := cmp.Or(x.want(a), shows(a, m.marks, id)); err != nil {
						t.Errorf("%s: %v", op.id, err)
					}
				}
			}
		}
	}
	m.nothingHappened(t, "bodies")
}

// leaks is the run without any guard: every cell that is 404 or empty because
// of a guard must now be something else, or the matrix would not see a leak.
func (m *matrix) leaks(t *testing.T) {
	t.Helper()
	var blind []string
	writesLast := m.tenantRoutes()
	slices.SortStableFunc(writesLast, func(a, b operation) int { return cmp.Compare(rank(a), rank(b)) })
	n := 0
	for _, op := range writesLast {
		for _, p := range op.parameters {
			if how := meanings[p.key()].how; how == plain || how == bound || beside(op, p) { // a cursor is sealed for its tenant besides
				continue
			}
			sees := false
			for value, k := range m.valuesFor(op, p, &m.two.a, &m.two.b) {
				if !p.pattern.MatchString(value) {
					continue
				}
				for _, x := range m.cells(op, p, k, value, &m.two.b, &m.two.a) {
					a := m.try(m.b, x)
					sees = sees || x.want(a) != nil || shows(a, m.marks, x.String()) != nil
				}
			}
			if n++; !sees {
				blind = append(blind, op.id+" "+p.key())
			}
		}
	}
	if len(blind) > 0 || n < 25 {
		t.Errorf("of %d, the matrix would not see a leak in:\n%s", n, strings.Join(blind, "\n"))
	}
}

// rank orders reads before changes before what ends something.
func rank(o operation) int {
	switch o.method {
	case http.MethodGet:
		return 0
	case http.MethodDelete:
		return 2
	}
	return 1
}
