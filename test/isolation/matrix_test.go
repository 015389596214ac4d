package isolation

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/typeid"
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
			}
		})
	}
}

var predicate = regexp.MustCompile(`(?:\w+\.)?tenant_id = (\$\d+)`)

// withoutPredicates takes the tenant's predicate out of a query and leaves its
// argument in.
func withoutPredicates(sql string) string {
	return predicate.ReplaceAllString(sql, "($1::uuid IS NOT NULL)")
}

// bypassingRole makes a role that row-level security does not bind, with the
// rights of the serving role.
func (w *two) bypassingRole(t *testing.T) string {
	t.Helper()
	suffix := make([]byte, 6)
	_, _ = rand.Read(suffix) // never fails
	name := "mendian_test_bypass_" + hex.EncodeToString(suffix)
	w.owner(t, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `CREATE ROLE `+name+` NOLOGIN BYPASSRLS IN ROLE `+postgres.AppRole)
		if !postgres.IsCode(err, "42501") {
			return err
		}
		// Only a superuser gives that attribute. A policy that lets all rows
		// through has the same effect.
		if _, err := conn.Exec(ctx, `CREATE ROLE `+name+` NOLOGIN IN ROLE `+postgres.AppRole); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, `DO $$ BEGIN EXECUTE format('GRANT `+name+` TO %I', current_user); EXCEPTION WHEN OTHERS THEN NULL; END $$`); err != nil {
			return err
		}
		for _, table := range w.tenantTables(t) {
			if _, err := conn.Exec(ctx, `CREATE POLICY everything ON `+table+` TO `+name+` USING (true) WITH CHECK (true)`); err != nil {
				return err
			}
		}
		return nil
	})
	t.Cleanup(func() {
		w.owner(t, func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, `DROP OWNED BY `+name+`; DROP ROLE `+name)
			return err
		})
	})
	return name
}

// prove shows that the guards that should be off are off, and the others on:
// as tenant B, one query without a predicate, and one whose predicate names
// nobody.
func (w *two) prove(t *testing.T, db *postgres.DB, noPolicy, noSQL bool) {
	t.Helper()
	count := func(sql string, args ...any) (n int) {
		t.Helper()
		err := db.InTenant(t.Context(), w.b.id, func(tx postgres.DBTX) error { return tx.QueryRow(t.Context(), sql, args...).Scan(&n) })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(`SELECT count(*) FROM resources WHERE tenant_id <> current_tenant()`); (n > 0) != noPolicy {
		t.Fatalf("a query without a predicate shows tenant B %d stores of A; row-level security off: %v", n, noPolicy)
	}
	if n := count(`SELECT count(*) FROM resources WHERE tenant_id = $1`, uuid.New()); (n > 0) != noSQL {
		t.Fatalf("a query for nobody's stores shows %d; predicates off: %v", n, noSQL)
	}
	if n := count(`SELECT count(*) FROM resources WHERE tenant_id = $1`, w.a.id); (n > 0) != (noSQL || noPolicy) {
		t.Fatalf("a query for A's stores shows tenant B %d; predicates off: %v, row-level security off: %v", n, noSQL, noPolicy)
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
}

func newMatrix(t *testing.T, w *two, n *node) *matrix {
	t.Helper()
	m := &matrix{two: w, a: n.client(w.a.key, ""), b: n.client(w.b.key, ""), tables: w.tenantTables(t), operations: operationsOf(t), cursors: map[string][]string{}}
	m.two.a.ids, m.two.b.ids = w.owned(t, &w.a), w.owned(t, &w.b)
	m.marks = w.marks(t, &w.a, &w.b)
	return m
}

// tenantRoutes are the operations that a tenant's key reaches.
func (m *matrix) tenantRoutes() []operation {
	return slices.DeleteFunc(slices.Clone(m.operations), func(o operation) bool { return o.admin() })
}

// A cell is a request that uses something foreign, and what it must be told.
type cell struct {
	method, path string
	body         any
	headers      []string
	status       int
	codes        []string // of which one; none: no problem
}

func (c cell) String() string { return fmt.Sprint(c.method, " ", c.path, " ", c.headers) }

var noSuchThing = []string{"not_found", "merchant_not_found", "store_not_found", "goods_not_found"}

// byNumber are the kinds that WeChat numbers for each account by itself.
var byNumber = []kind{numbers, legacyNumbers, goodsNumbers}

// live is what a query needs for an operation's list to come from WeChat,
// where it isn't asked for goods by their numbers: it has no list of all goods.
func (o operation) live() url.Values {
	q := url.Values{"source": {"live"}}
	if o.id == "listGoods" {
		q.Set("status", "approved")
	}
	return q
}

// cells are all requests of an operation in which one parameter is value, of
// kind k, and everything else the caller's own: without an acting merchant,
// with the caller's, and with each of the owner's.
func (m *matrix) cells(op operation, p parameter, k kind, value string, own, owner *side) []cell {
	type choice struct{ acting, source string }
	choices := []choice{{}}
	if op.has("header", "Merchant-Id") && p.name != "Merchant-Id" {
		choices = append(choices, choice{acting: own.acting(op)})
		for _, merchant := range owner.merchants {
			choices = append(choices, choice{acting: merchant})
		}
	}
	if op.has("query", "source") {
		for _, c := range slices.Clone(choices) {
			choices = append(choices, choice{c.acting, "live"})
		}
	}
	var out []cell
	for _, ch := range choices {
		c := cell{method: op.method, body: op.body, path: op.path}
		query := url.Values{}
		for _, q := range op.parameters {
			v := ""
			switch {
			case q.key() == p.key():
				v = value
			case q.in == "header" && q.name == "Merchant-Id":
				v = ch.acting
				if v == "" && p.in == "header" {
					v = own.acting(op)
				}
			case ch.source == "live" && op.live().Has(q.name) && p.name != "goods_id":
				v = op.live().Get(q.name)
			case q.name == "source":
				v = ch.source
			case q.required && meanings[q.key()].how == plain:
				v = meanings[q.key()].always
			case q.required:
				mine := own.ids[meanings[q.key()].names[0]]
				if len(mine) == 0 {
					return nil // one merchant has stores or goods
				}
				v = mine[0]
			}
			if v == "" {
				continue
			}
			switch q.in {
			case "path":
				c.path = strings.Replace(c.path, "{"+q.name+"}", v, 1)
			case "query":
				query.Set(q.name, v)
			case "header":
				c.headers = append(c.headers, q.name, v)
			}
		}
		if len(query) > 0 {
			c.path += "?" + query.Encode()
		}
		foreign := ch.acting != "" && slices.Contains(owner.merchants, ch.acting)
		switch how := meanings[p.key()].how; {
		case !p.pattern.MatchString(value):
			c.status, c.codes = http.StatusBadRequest, []string{"invalid_parameter"}
		case how == hidden && p.in == "header" && op.has("path", "merchant_id"):
			c.status, c.codes = http.StatusBadRequest, []string{"merchant_mismatch"} // whatever the header names that isn't the path's
		case slices.Contains(byNumber, k) && how == hidden && ch.acting == "":
			c.status, c.codes = http.StatusBadRequest, []string{"merchant_required"}
		case how == hidden || foreign:
			c.status, c.codes = http.StatusNotFound, noSuchThing
		case ch.source == "live" && ch.acting == "":
			c.status, c.codes = http.StatusBadRequest, []string{"merchant_required"}
		case how == bound:
			c.status, c.codes = http.StatusBadRequest, []string{"invalid_cursor"}
		case ch.source == "live" && p.name != "goods_id": // WeChat's list has no other filters
			c.status, c.codes = http.StatusBadRequest, []string{"invalid_parameter"}
		default:
			c.status = http.StatusOK
		}
		out = append(out, c)
	}
	return out
}

// valuesFor are what of the owner's is put into a parameter: some of each kind
// that it names, and one of each other kind.
func (m *matrix) valuesFor(op operation, p parameter, owner, not *side) map[string]kind {
	out := map[string]kind{}
	for _, k := range meanings[p.key()].names {
		list := owner.ids[k]
		if k == cursorsKind {
			list = m.cursors[op.id]
		}
		n := 0
		for _, id := range list {
			if n < 6 && (not == nil || !slices.Contains(not.ids[k], id)) {
				out[id] = k
				n++
			}
		}
	}
	if p.in == "path" {
		for k, list := range owner.ids {
			if len(list) == 0 {
				continue
			}
			if id := list[0]; out[id] == "" && (not == nil || !slices.Contains(not.ids[k], id)) && !p.pattern.MatchString(id) {
				out[id] = k
			}
		}
	}
	return out
}

func (m *matrix) try(c *world.Client, x cell) *world.Answer {
	return c.Do(x.method, x.path, x.body, x.headers...)
}

// want says what is wrong with an answer, or nothing.
func (c cell) want(a *world.Answer) error {
	if a.Status != c.status || c.codes != nil && !slices.Contains(c.codes, a.Code()) {
		return fmt.Errorf("%s: %d %s, want %d %v: %s", c, a.Status, a.Code(), c.status, c.codes, a.Body)
	}
	return nil
}

// shows is what of the marks stands in an answer and not in its request.
func shows(a *world.Answer, marks []string, sent string) error {
	head, err := json.Marshal(a.Header)
	if err != nil {
		return err
	}
	text := string(head) + string(a.Body)
	for _, mark := range marks {
		if holds(text, mark) && !strings.Contains(sent, mark) {
			return fmt.Errorf("%s %s shows %q: %s", a.Method, a.Path, mark, a.Body)
		}
	}
	return nil
}

// holds reports whether mark stands in text; WeChat's numbers, of which some
// have five digits, stand there as numbers and not within a random id.
func holds(text, mark string) bool {
	if strings.Trim(mark, "0123456789") != "" {
		return strings.Contains(text, mark)
	}
	return regexp.MustCompile(`(^|[^0-9a-z])` + mark + `($|[^0-9a-z])`).MatchString(text)
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

// nobodys is a value of the same shape that exists nowhere; "" where there is
// none.
func nobodys(k kind, value string) string {
	prefix, _, isID := strings.Cut(value, "_")
	switch {
	case k == cursorsKind || k == references || k == tenants:
		return ""
	case isID:
		return typeid.Format(typeid.Prefix(prefix), typeid.New())
	case strings.HasPrefix(value, "wx"):
		return "wx" + strings.ReplaceAll(uuid.NewString(), "-", "")[:16]
	}
	return "9" + value[1:]
}

var requestID = regexp.MustCompile(`req_[0-9a-z]{26}|"rid":"[0-9a-f-]+"`) // ours and WeChat's

// plainly is an answer without what differs from request to request.
func plainly(a *world.Answer, value string) string {
	return fmt.Sprint(a.Status, " ", strings.ReplaceAll(requestID.ReplaceAllString(string(a.Body), ""), value, "…"))
}

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

// beside tells a header that names the acting merchant where the path names
// something already: it is only compared with that. The cells of the path's
// parameter are tried with every acting merchant.
func beside(op operation, p parameter) bool {
	return p.in == "header" && slices.ContainsFunc(op.parameters, func(q parameter) bool { return q.in == "path" && meanings[q.key()].how == hidden })
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
