package isolation

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// Routes outside the contract, each with its reason. None of them takes an API
// key, and none shows anything of a tenant.
var outside = map[string]string{
	"GET /":                             "leads to the Swagger page",
	"GET /openapi.yaml":                 "the contract itself",
	"GET /docs":                         "leads to the Swagger page",
	"GET /docs/":                        "leads to the Swagger page",
	"GET /docs/*":                       "the Swagger page and its parts",
	"GET /docs/doc.json":                "closed: the Swagger library would answer 500",
	"GET /docs/doc.yaml":                "closed: the Swagger library would answer 500",
	"GET /docs/problems/:code":          "what the type of a problem document names",
	"GET /healthz":                      "load balancers ask it",
	"GET /readyz":                       "load balancers ask it",
	"GET /.well-known/jwks.json":        "the public keys, for whoever verifies a key's signature",
	"POST /wechat/:ref/component":       "WeChat pushes there, signed and encrypted",
	"POST /wechat/:ref/messages/:appid": "WeChat pushes there, signed and encrypted",
	"GET /connect/:state":               "a browser opens an authorisation link",
	"POST /connect/:state":              "its button",
	"GET /connect/:state/callback":      "WeChat sends the browser back",
}

// There is no other way in: every route is an operation of the contract or
// stands above, and each of these exists.
func TestNoOtherRoutes(t *testing.T) {
	t.Parallel()
	n := newScopeNode(t)
	routed := map[string]bool{}
	for _, r := range n.edge.Routes() {
		if r.Method == "echo_route_not_found" {
			continue // Echo's own: it lets the middleware of /v1 see unknown paths
		}
		routed[r.Method+" "+r.Path] = true
	}
	known := map[string]bool{}
	for _, op := range operationsOf(t) {
		known[op.method+" "+strings.NewReplacer("{", ":", "}", "").Replace(op.path)] = true
	}
	for route := range outside {
		known[route] = true
	}
	for route := range routed {
		if !known[route] {
			t.Errorf("%s is neither in the contract nor in the list of what isn't", route)
		}
	}
	for route := range known {
		if !routed[route] {
			t.Errorf("%s does not exist", route)
		}
	}
	// Attack 92: what operators look at is on their own listener.
	c := n.client(n.world.Key, "")
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/vars", "/env", "/.env", "/v1/admin", "/admin", "/_sandbox/truth"} {
		tried(t, "92")
		if a := c.Do("GET", path, nil); a.Status != http.StatusNotFound {
			t.Errorf("GET %s = %d, want 404", path, a.Status)
		}
	}
}

type scopeNode struct {
	*node
	world *world.World
}

func newScopeNode(t *testing.T) scopeNode {
	t.Helper()
	w := world.New(t, world.Options{})
	n := start(t, setup{db: postgres.Config{DSN: w.DSN}, keyset: w.Env["GATEWAY_KEYSET_FILE"], wechat: w.SandboxURL, public: w.PublicURL})
	t.Cleanup(func() { n.showsNoSecret(t, w) })
	return scopeNode{n, w}
}

// example is a request of the operation that can be read, about things that
// exist nowhere.
func (o operation) example(t *testing.T) (path string) {
	t.Helper()
	path = o.path
	var query []string
	for _, p := range o.parameters {
		v := ""
		switch {
		case !p.required:
			continue
		case meanings[p.key()].always != "":
			v = meanings[p.key()].always
		default:
			for _, prefix := range []typeid.Prefix{typeid.Tenant, typeid.Key, typeid.Merchant, typeid.AuthorizationLink, typeid.Store, typeid.MapPOI, typeid.LegacyStore, typeid.Goods, typeid.StoreMigration, typeid.Audit, typeid.Operation, typeid.Event} {
				if id := typeid.Format(prefix, typeid.New()); v == "" && p.pattern.MatchString(id) {
					v = id
				}
			}
		}
		if v == "" {
			t.Fatalf("%s: what is an example of %q?", o.id, p.key())
		}
		if p.in == "path" {
			path = strings.Replace(path, "{"+p.name+"}", v, 1)
		} else {
			query = append(query, p.name+"="+v)
		}
	}
	if query != nil {
		path += "?" + strings.Join(query, "&")
	}
	return path
}

// Attack 79, as a matrix: each scope alone opens exactly the operations that
// the contract says it opens, none opens those that need none, and a refusal
// names what is missing.
func TestScopesOpenExactlyTheirRoutes(t *testing.T) {
	t.Parallel()
	n := newScopeNode(t)
	full := n.client(n.world.Key, "")
	clients := map[string]*world.Client{"*": full}
	for _, scope := range tenant.Scopes {
		key := full.Do("POST", "/v1/api-keys", map[string]any{"name": scope, "scopes": []string{scope}}).Want(http.StatusCreated)
		clients[scope] = full.As(key.Get("token"))
	}
	// A key always has a scope; its row can lose all of them.
	bare := full.Do("POST", "/v1/api-keys", map[string]any{"name": "bare", "scopes": []string{"stores:read"}}).Want(http.StatusCreated)
	n.world.Exec(`UPDATE api_keys SET scopes = '{}' WHERE tenant_id = $1 AND id = $2`, n.world.UUID(typeid.Tenant, n.world.Tenant.ID), n.world.UUID(typeid.Key, bare.Get("id")))
	clients["none"] = full.As(bare.Get("token"))

	opened, cells := map[string]int{}, 0
	for _, op := range operationsOf(t) {
		bySubject := op.scope == "subject:write" // any of these, and then the subject's own
		if op.scope != "none" && !op.admin() && !bySubject && !slices.Contains(tenant.Scopes, op.scope) {
			t.Errorf("%s needs %q, which no key can have", op.id, op.scope)
		}
		path := op.example(t)
		for scope, c := range clients {
			tried(t, "79")
			cells++
			a := c.Do(op.method, path, op.body)
			if op.admin() { // to tenants they don't exist
				tried(t, "78")
				a.WantProblem(http.StatusNotFound, "not_found")
				continue
			}
			open := op.scope == "none" || scope == op.scope || scope == "*" || bySubject && slices.Contains(subjectScopes, scope)
			if open {
				opened[scope]++
			}
			switch missing := a.Status == http.StatusForbidden && a.Code() == "scope_missing"; {
			case missing == open:
				t.Errorf("%s with the scope %s: %d %s, want it open: %v", op.id, scope, a.Status, a.Code(), open)
			case missing && a.Get("required") != op.scope:
				t.Errorf("%s with the scope %s: %s, want required %s", op.id, scope, a.Body, op.scope)
			case open && (a.Status == http.StatusUnauthorized || a.Status >= 500 && a.Status != http.StatusServiceUnavailable):
				t.Errorf("%s with the scope %s: %d %s", op.id, scope, a.Status, a.Body)
			}
		}
	}
	counted(t, len(operationsOf(t)), cells)
	if opened["none"] != 1 || opened["stores:write"] < 3 || opened["*"] < 24 {
		t.Errorf("operations that a scope opens: %v", opened)
	}
}

// subjectScopes are the scopes for what WeChat audits.
var subjectScopes = []string{"store-program:write", "stores:write", "map-pois:write", "goods:write", "legacy-stores:write"}

// Attacks 1, 11 and 78: an operator's key is nobody's on the tenants' routes,
// a tenant's key is told that the operators' don't exist, and without a key
// nothing is told at all.
func TestSurfacesAreApart(t *testing.T) {
	t.Parallel()
	n := newScopeNode(t)
	operator := n.world.AdminKey()
	from := 0
	// Failures are counted by address: each comes from another one.
	client := func(key string) *world.Client {
		from++
		return n.client(key, fmt.Sprintf("198.51.%d.%d", from/200, from%200))
	}
	for _, op := range operationsOf(t) {
		path := op.example(t)
		tried(t, "1, 11")
		client("").Do(op.method, path, op.body).WantProblem(http.StatusUnauthorized, "token_missing")
		client("").Do(op.method, path, `{`).WantProblem(http.StatusUnauthorized, "token_missing")
		if op.admin() {
			tried(t, "78")
			client(n.world.Key).Do(op.method, path, op.body).WantProblem(http.StatusNotFound, "not_found")
			client(n.world.Key).Do(op.method, path, `{`).WantProblem(http.StatusNotFound, "not_found")
			if a := client(operator).Do(op.method, path, op.body); a.Status == http.StatusUnauthorized || a.Status == http.StatusForbidden {
				t.Errorf("%s with an operator's key: %d %s", op.id, a.Status, a.Body)
			}
			continue
		}
		client(operator).Do(op.method, path, op.body).WantProblem(http.StatusUnauthorized, "token_invalid")
	}
	for _, path := range []string{"/v1/admin/", "/v1/admin/nothing", "/v1/admin/tenants/x/y/z"} {
		client(n.world.Key).Do("GET", path, nil).WantProblem(http.StatusNotFound, "not_found")
	}
}
