package isolation

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers"
	"github.com/mendian/mendian/internal/inbox"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/migration"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/reference"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/spool"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
	"github.com/mendian/mendian/test/world"
)

// A node is a gateway as cmd/gateway assembles it, in this process, because
// here one of the two guards between tenants can be switched off: that is a
// setting of postgres.Config which no binary reads. It runs no background jobs
// but those that pushes make, so that nothing happens which a test didn't do.
type node struct {
	t    testing.TB
	edge *handlers.Edge
	db   *postgres.DB
	log  *syncBuffer
	rec  recorder // of all that it answers
	dir  string   // its spool is in it

	metrics http.Handler
}

// A setup says where a node finds what it works with.
type setup struct {
	db      postgres.Config
	keyset  string
	wechat  string
	public  string
	limited bool // the default limits of requests; without, none
}

var spools atomic.Int64

func start(t *testing.T, s setup) *node {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	n := &node{t: t, log: &syncBuffer{}, dir: t.TempDir()}
	log, err := observe.NewLogger(n.log, "debug")
	must(err)
	log.DebugContext(ctx, onPurpose)
	keyset, err := secret.OpenKeyset(s.keyset)
	must(err)
	records, err := spool.Open(filepath.Join(n.dir, "spool-"+strconv.FormatInt(spools.Add(1), 10)), keyset)
	must(err)
	n.db, err = postgres.Open(ctx, s.db)
	must(err)
	metrics := observe.NewMetrics()
	n.metrics = metrics.Handler()
	besides := observe.NewBackground(log, metrics)
	changes := n.db.NewChanges(log)
	tenants := tenant.New(tenant.Deps{DB: n.db, Keyset: keyset, Changes: changes, Log: log, DefaultRate: tenant.RateLimit{PerSecond: 1e6, Burst: 1e6}})
	keys := tenant.NewKeys(tenants)
	client := wechat.NewClient(s.wechat, nil)
	auth := authorizer.New(authorizer.Deps{DB: n.db, Keyset: keyset, Tenants: tenants, WeChat: client, Changes: changes, Spool: records, Log: log, Background: besides,
		Config: authorizer.Config{PublicURL: s.public, MPURL: s.wechat, OpenURL: s.wechat, Instance: records.Instance()}})
	writes := ledger.New(ledger.Deps{DB: n.db, Keyset: keyset, Authorizer: auth, Spool: records, Changes: changes, Schedule: ledger.DefaultSchedule, Log: log, Background: besides})
	in := inbox.New(inbox.Deps{DB: n.db, Keyset: keyset, Tenants: tenants, Authorizer: auth, Ledger: writes, Metrics: metrics, Background: besides, Log: log})
	server := handlers.NewServer(handlers.Deps{Tenants: tenants, Keys: keys, Authorizer: auth, Ledger: writes, Inbox: in, DB: n.db,
		Migrations: migration.New(migration.Deps{DB: n.db, Authorizer: auth, Ledger: writes, Background: besides, Log: log, Instance: records.Instance()}),
		Reference:  reference.New(auth), Keyset: keyset, Log: log, PublicURL: s.public})
	config := handlers.Config{Server: server, Authenticate: keys.Authenticate, Public: server.Public, Ready: n.db.CheckRole, Log: log, Metrics: metrics,
		PublicURL: s.public, AllowedOrigin: server.AllowedOrigin, Docs: true}
	if !s.limited {
		config.KeyRate, config.TenantRate = tenant.RateLimit{PerSecond: 1e6, Burst: 1e6}, 1e6
	}
	n.edge, err = handlers.New(config)
	must(err)

	life, end := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() { changes.Run(life) })
	background.Go(func() {
		for life.Err() == nil {
			besides.Run(life, "apply pushes", in.Work)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		end()
		background.Wait()
		writes.Close(ctx)
		auth.Close()
		if err := records.Close(); err != nil {
			t.Errorf("close the spool: %v", err)
		}
		client.Close()
		n.db.Close()
	})
	return n
}

// client is a client of the node's REST API, without a network between. from
// is the address that the node sees; "" is one of documentation's.
func (n *node) client(key, from string) *world.Client {
	if from == "" {
		from = "192.0.2.1"
	}
	return world.NewClient(n.t, "http://gateway.test", key, inProcess{n, from})
}

// showsNoSecret looks for every secret of its world, and of further simulators,
// in what the node wrote, answered, counts and keeps.
func (n *node) showsNoSecret(t *testing.T, w *world.World, further ...*world.World) {
	t.Helper()
	if t.Failed() {
		return // it may have ended in the middle of anything
	}
	counts := httptest.NewRecorder()
	n.metrics.ServeHTTP(counts, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	w.Exec(`UPDATE tenants SET name = $1 WHERE id = $2`, onPurpose, w.UUID(typeid.Tenant, w.Tenant.ID))
	found := secretsOf(t, &n.rec, w, further...)
	known(t, found, "component secret", "message token", "EncodingAESKey", "ticket", "API key", "keyset")
	noneShows(t, found,
		shelf{"the log", n.log.String(), onPurpose},
		shelf{"/metrics", counts.Body.String(), `route="`},
		shelf{"the database", dump(t, w), onPurpose},
		shelf{"the spool", files(t, n.dir, "spool-"), onPurpose})
	n.rec.holdsNone(t, found)
}

// inProcess hands requests to a node as its server would.
type inProcess struct {
	node *node
	from string
}

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.RequestURI, in.RemoteAddr, in.Host = r.URL.RequestURI(), p.from+":1234", r.URL.Host
	in.URL = &url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	p.node.edge.ServeHTTP(w, in)
	p.node.rec.keep(reply{r.Method, r.URL.Path, w.Code, fmt.Sprint(w.Header()), w.Body.String()})
	res := w.Result()
	res.Request = r
	return res, nil
}

// A syncBuffer is written by many goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
