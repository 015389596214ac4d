package ledger

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/wechat"
)

// canned is a WeChat that answers each request with the same list of stores.
func canned(b *testing.B) (base string) {
	b.Helper()
	list, err := os.ReadFile(filepath.Join("..", "wechat", "testdata", "documents", "get_store_list.reply"))
	if err != nil {
		b.Fatal(err)
	}
	var body bytes.Buffer
	if err := json.Compact(&body, list); err != nil {
		b.Fatal(err)
	}
	reply := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", body.Len(), body.Bytes())
	ln, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ln.Close() })
	serve := func(c net.Conn) {
		defer c.Close()
		in := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			if _, err := c.Write(reply); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return "http://" + ln.Addr().String()
}

// A warm read of a page of two stores, below the edge: all from memory but the
// call, whose server is in it. cpu is of the whole process.
func BenchmarkLiveStores(b *testing.B) {
	w := &bundle{db: pgtest.New(b)}
	w = w.another(b)
	path := filepath.Join(b.TempDir(), "keyset.json")
	if err := secret.CreateKeyset(path); err != nil {
		b.Fatal(err)
	}
	keyset, err := secret.OpenKeyset(path)
	if err != nil {
		b.Fatal(err)
	}
	m := w.merchant
	token, err := keyset.SealText(secret.Place{Table: "authorizer_tokens", Column: "access_ct", Tenant: m.TenantID, AppID: m.AppID, Row: m.ID.String()}, secret.NewText("token"))
	if err != nil {
		b.Fatal(err)
	}
	err = w.db.InTenant(b.Context(), m.TenantID, func(tx postgres.DBTX) error {
		_, err := tx.Exec(b.Context(), `INSERT INTO authorizer_tokens (tenant_id, merchant_id, access_ct, access_gen, access_expires_at, refresh_token_ct)
			VALUES ($1, $2, $3, 1, now() + interval '2 hours', $3)`, m.TenantID, m.ID, token)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	background := observe.NewBackground(log, observe.NewMetrics())
	changes := w.db.NewChanges(log)
	listening, stop := context.WithCancel(b.Context())
	defer stop()
	go changes.Run(listening)
	tenants := tenant.New(tenant.Deps{DB: w.db, Keyset: keyset, Changes: changes, Log: log})
	client := wechat.NewClient(canned(b), nil)
	auth := authorizer.New(authorizer.Deps{DB: w.db, Keyset: keyset, Tenants: tenants, Changes: changes, Log: log, Background: background, WeChat: client})
	l := New(Deps{DB: w.db, Keyset: keyset, Authorizer: auth, Changes: changes, Schedule: DefaultSchedule, Log: log, Background: background})
	defer l.Close(context.Background())
	defer auth.Close()
	read := func(ctx context.Context) {
		if out, _, err := l.LiveStores(ctx, m, 0, 20); err != nil || len(out) != 2 {
			b.Errorf("%v %v", out, err)
		}
	}
	for range 3 {
		read(b.Context())
		time.Sleep(300 * time.Millisecond)
	}
	b.Run("all", func(b *testing.B) {
		var before, after syscall.Rusage
		b.ReportAllocs()
		b.SetParallelism(16)
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
		b.RunParallel(func(pb *testing.PB) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			for pb.Next() {
				read(ctx)
			}
		})
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
		cpu := func(r syscall.Rusage) int64 { return r.Utime.Nano() + r.Stime.Nano() }
		b.ReportMetric(float64(cpu(after)-cpu(before))/float64(b.N), "cpu-ns/op")
	})
	b.Run("after the call", func(b *testing.B) {
		reply, mark, err := authorizer.CallMarked[wechat.GetStoreListReply](b.Context(), auth, m, wechat.GetStoreList, nil, wechat.GetStoreListRequest{Limit: 20})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := l.liveStores(b.Context(), m, reply.Stores(), mark, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A page of our records of one merchant, and the same asked for with a filter:
// one after the other, so the time is this process's and Postgres's.
func BenchmarkList(b *testing.B) {
	w := setup(b)
	m := w.merchant
	err := w.db.InTenant(b.Context(), m.TenantID, func(tx postgres.DBTX) error {
		for _, sql := range []string{
			`INSERT INTO merchants (tenant_id, id, appid, status) SELECT $1, gen_random_uuid(), 'wx' || n, 'authorized' FROM generate_series(1, 1000) n`,
			`INSERT INTO resources (tenant_id, id, merchant_id, type, wechat_id, fields, status, origin)
				SELECT $1, gen_random_uuid(), m.id, 'store', n, '{"name": "Chaosu Tianshi Club", "address": "No. 19, Xinhua Road", "city": "Handan",
				"photos": ["http://mmbiz.qpic.cn/mmbiz_jpg/0"], "location": {"latitude": "36.7714881897", "longitude": "114.958480835"}}', 'active', 'discovered'
				FROM merchants m, unnest(ARRAY['1', '2']) n WHERE m.tenant_id = $1`,
		} {
			if _, err := tx.Exec(b.Context(), sql, m.TenantID); err != nil {
				return err
			}
		}
		_, err := tx.Exec(b.Context(), `SET LOCAL ROLE NONE`) // the application may not ANALYZE
		if err == nil {
			_, err = tx.Exec(b.Context(), `ANALYZE`)
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	for name, f := range map[string]Filter{"page": {}, "filter": {Status: "active"}} {
		b.Run(name, func(b *testing.B) {
			f.Merchants, f.Limit = []uuid.UUID{m.ID}, 21
			b.ReportAllocs()
			for b.Loop() {
				if got, err := w.ledgers[0].Stores.List(b.Context(), m.TenantID, f); err != nil || len(got) != 2 {
					b.Fatal(got, err)
				}
			}
		})
	}
}
