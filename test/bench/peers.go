package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A subject is something that is measured: the gateway, a peer, or the upstream
// alone.
type subject struct {
	name  string
	does  string
	addr  string
	start func() (*proc, error) // nil: it runs already
	// proc is what runs where start is nil.
	running *proc
	read    traffic
}

// caddyVersion is the one that our docker-compose.yml runs.
const caddyVersion = "v2.10.2"

// peers are those that are installed here, and which are left out and why.
func (w *world) peers(ctx context.Context) (found []subject, missing []string, _ error) {
	conf := filepath.Join(w.dir, "peers")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		return nil, nil, err
	}
	plain, jwts := w.passRead(nil), w.passRead(w.jwts())
	for _, p := range []struct {
		name, does string
		binary     func() (string, error)
		file, text string
		args       []string
		read       traffic
	}{
		{"nginx", "copies bytes", installed("nginx", "/usr/sbin/nginx"), "nginx.conf", nginxConf,
			[]string{"-p", conf, "-c"}, plain},
		{"HAProxy with JWT", "verifies HS256, copies bytes", installed("haproxy", "/usr/sbin/haproxy"), "haproxy.cfg", haproxyConf,
			[]string{"-db", "-f"}, jwts},
		{"Caddy", "copies bytes", func() (string, error) { return caddy(ctx) }, "Caddyfile", caddyConf,
			[]string{"run", "--adapter", "caddyfile", "--config"}, plain},
	} {
		binary, err := p.binary()
		if err != nil {
			missing = append(missing, fmt.Sprintf("%s: %v", p.name, err))
			continue
		}
		addr, err := freeAddr()
		if err != nil {
			return nil, nil, err
		}
		file := filepath.Join(conf, p.file)
		_, port, _ := strings.Cut(addr, ":")
		text := strings.NewReplacer("LISTEN", addr, "PORT", port, "UPSTREAM", w.stubAddr, "SECRET", jwtSecret).Replace(p.text)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return nil, nil, err
		}
		found = append(found, subject{name: p.name, does: p.does, addr: addr, read: p.read, start: func() (*proc, error) {
			return start(conf, []string{"HOME=" + conf}, binary, append(p.args, file)...)
		}})
	}
	return found, missing, nil
}

func installed(name, usual string) func() (string, error) {
	return func() (string, error) {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
		if _, err := os.Stat(usual); err == nil {
			return usual, nil
		}
		return "", fmt.Errorf("not installed (apt-get install --no-install-recommends nginx-light haproxy)")
	}
}

// caddy builds Caddy, once a machine: it takes some minutes.
func caddy(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "mendian-bench", "caddy-"+caddyVersion)
	path := filepath.Join(dir, "caddy")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	logf("building Caddy %s, once", caddyVersion)
	cmd := exec.CommandContext(ctx, "go", "install", "-ldflags=-s -w", "github.com/caddyserver/caddy/v2/cmd/caddy@"+caddyVersion)
	cmd.Dir, cmd.Env = os.TempDir(), append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install: %w: %.500s", err, out)
	}
	return path, nil
}

const nginxConf = `worker_processes 1;
daemon off;
error_log stderr error;
pid nginx.pid;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  keepalive_requests 100000000;
  upstream wx { server UPSTREAM; keepalive 512; keepalive_requests 100000000; }
  server { listen LISTEN backlog=4096; location / { proxy_pass http://wx; proxy_http_version 1.1; proxy_set_header Connection ""; } }
}
`

// The JWT is checked as the gateway checks a key's: signature, algorithm,
// issuer, expiry. What the key may do isn't.
const haproxyConf = `global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
listen jwt
  bind LISTEN
  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request deny deny_status 401 unless { var(txn.alg) -m str HS256 }
  http-request deny deny_status 401 unless { var(txn.bearer),jwt_payload_query('$.iss') -m str bench }
  http-request deny deny_status 401 unless { var(txn.bearer),jwt_verify(txn.alg,"SECRET") -m int 1 }
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 if { var(txn.exp),sub(txn.now) -m int lt 0 }
  server wx UPSTREAM pool-max-conn 512
`

const caddyConf = `{
	admin off
	auto_https off
	persist_config off
	log {
		level ERROR
	}
}
http://:PORT {
	bind 127.0.0.1
	reverse_proxy UPSTREAM {
		transport http {
			keepalive_idle_conns_per_host 1024
			compression off
		}
	}
}
`

// settings are the gateway's beside the ones that say where things are. Its
// limits are raised by their ordinary settings; all others are the defaults.
var settings = []string{"GATEWAY_KEY_RATE=1000000", "GATEWAY_KEY_BURST=1000000", "GATEWAY_TENANT_RATE=1000000"}

// gatewaySubject is the binary that users get.
func (w *world) gatewaySubject() (s subject, admin string, _ error) {
	addr, err := freeAddr()
	if err != nil {
		return s, "", err
	}
	if admin, err = freeAddr(); err != nil {
		return s, "", err
	}
	env := append([]string{"DATABASE_URL=" + w.dsn, "GATEWAY_KEYSET_FILE=" + w.keysetFile(), "GATEWAY_SPOOL_DIR=" + filepath.Join(w.dir, "spool"),
		"GATEWAY_ADDR=" + addr, "GATEWAY_ADMIN_ADDR=" + admin, "GATEWAY_PUBLIC_URL=http://" + addr, "GATEWAY_WECHAT_API_URL=http://" + w.stubAddr,
		"GATEWAY_DRAIN_DELAY=0s"}, settings...)
	return subject{name: "gateway", does: "authenticates, validates, translates, logs, counts", addr: addr, read: w.liveRead(),
		start: func() (*proc, error) { return start(w.dir, env, w.gateway, "serve") }}, admin, nil
}

// get asks for a page of one of our helpers: the stub's controls, the metrics.
func get(addr, path string) (body string, err error) {
	const patience = 30 * time.Second // a profile takes its time
	conn, err := net.DialTimeout("tcp4", addr, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	c := newWire(conn)
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: bench\r\n\r\n", path); err != nil {
		return "", err
	}
	if err := c.read(); err != nil {
		return "", err
	}
	if c.status() != http.StatusOK {
		return "", fmt.Errorf("%s: status %d", path, c.status())
	}
	return string(c.body), nil
}
