package world

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// WaitStopped waits until the process was stopped by SIGSTOP, its own or ours.
func (g *Gateway) WaitStopped() {
	g.t.Helper()
	Eventually(g.t, 20*time.Second, "the process stops", func() error {
		out, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(g.cmd.Process.Pid)).Output()
		if err != nil || !strings.HasPrefix(strings.TrimSpace(string(out)), "T") {
			return errors.Join(fmt.Errorf("state %q", out), err)
		}
		return nil
	})
}

// Metric is the sum of a metric's series whose labels contain all of these
// texts, such as `route="/v1/stores"`. A histogram is asked for by …_count.
func (g *Gateway) Metric(name string, labels ...string) float64 {
	g.t.Helper()
	resp, err := http.Get(g.AdminURL + "/metrics")
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	sum := 0.0
series:
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(?:\{(.*)\})? (\S+)$`).FindAllStringSubmatch(string(page), -1) {
		for _, l := range labels {
			if !strings.Contains(m[1], l) {
				continue series
			}
		}
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			g.t.Fatal(err)
		}
		sum += v
	}
	return sum
}
