package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// childState makes the test binary serve a simulator with this state file until it is killed.
const childState = "MENDIAN_SANDBOX_CHILD_STATE"

func TestMain(m *testing.M) {
	if path := os.Getenv(childState); path != "" {
		if err := serveChild(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func serveChild(path string) error {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	sim, err := New(Config{Addr: l.Addr().String(), StateFile: path})
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() { _ = sim.Run(context.Background()) }()
	return http.Serve(l, sim.Handler()) // #nosec G114 -- a child of the test
}

// A process killed at any moment has written every change that it answered for, whatever the table.
func TestKilledProcessLosesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	acked := map[string]bool{}
	for round := range 4 {
		child := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // this test binary
		child.Env = append(os.Environ(), childState+"="+path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		addr, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		base := "http://" + strings.TrimSpace(addr) + "/_sandbox/"
		kill := time.AfterFunc(time.Duration(20+round*30)*time.Millisecond, func() { _ = child.Process.Kill() })
		for n := 0; ; n++ {
			kind := []string{"stores", "goods"}[n%2]
			account := map[string]string{"stores": DemoOfficialAccount, "goods": DemoMiniProgram}[kind]
			resp, err := http.Post(base+"accounts/"+account+"/"+kind, "application/json", strings.NewReader(`{"count":1}`)) //nolint:noctx // ends with the child
			if err != nil {
				break
			}
			raw, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			var reply struct {
				Stores []string `json:"poi_ids"`
				Goods  []int64  `json:"goods_ids"`
			}
			if err != nil || json.Unmarshal(raw, &reply) != nil || len(reply.Stores)+len(reply.Goods) != 1 {
				break // cut off while it was read
			}
			for _, id := range reply.Stores {
				acked["stores "+id] = true
			}
			for _, id := range reply.Goods {
				acked["goods "+itoa(id)] = true
			}
		}
		kill.Stop()
		_ = child.Process.Kill()
		_ = child.Wait()
	}
	st, err := openState(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.close() }()
	lost := 0
	for id := range acked {
		kind, id, _ := strings.Cut(id, " ")
		if (kind == "stores" && st.stores.get(id) == nil) || (kind == "goods" && st.goods.get(id) == nil) {
			lost++
		}
	}
	if lost > 0 || len(acked) < 10 {
		t.Errorf("lost %d of %d acknowledged rows", lost, len(acked))
	}
	t.Log(strconv.Itoa(len(acked)) + " acknowledged over four kills")
}
