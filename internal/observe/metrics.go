package observe

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are the numbers of a process, on a registry of their own. Labels
// come from closed sets: routes of the contract, names of WeChat's calls,
// outcomes. The one exception is the tenant's id on the age of its ticket.
//
// docs/reference/metrics.md explains each; a test compares.
type Metrics struct {
	registry *prometheus.Registry

	requests     *prometheus.HistogramVec
	problems     *prometheus.CounterVec
	authFailures *prometheus.CounterVec
	upstream     *prometheus.HistogramVec
	refreshes    *prometheus.CounterVec
	ticketAge    *prometheus.GaugeVec
	pushes       *prometheus.CounterVec
	applied      *prometheus.CounterVec
	applyLag     *prometheus.HistogramVec
	background   *prometheus.CounterVec
	circuits     *prometheus.CounterVec
	retries      *prometheus.CounterVec
	trips        atomic.Int64
}

// NewMetrics makes the metrics of a process and registers them, with those of
// the Go runtime.
func NewMetrics() *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: histogram("mendian_http_request_seconds", "Time to answer a request, by route template, method and status.",
			[]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}, "route", "method", "status"),
		problems:     counter("mendian_problems_total", "Errors answered, by code.", "code"),
		authFailures: counter("mendian_auth_failures_total", "Requests refused for their API key, by reason.", "reason"),
		upstream: histogram("mendian_wechat_call_seconds", "Time of a call to WeChat, by call and by what its outcome proves.",
			[]float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}, "call", "class"),
		refreshes: counter("mendian_token_refreshes_total", "Token refreshes, by kind of token and outcome.", "kind", "outcome"),
		ticketAge: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "mendian_ticket_age_seconds",
			Help: "Age of the newest component_verify_ticket, by tenant."}, []string{"tenant"}),
		pushes:  counter("mendian_pushes_total", "Pushes received from WeChat, by kind and outcome.", "kind", "outcome"),
		applied: counter("mendian_inbox_applied_total", "Pushes applied in the background, by event and outcome.", "event", "outcome"),
		applyLag: histogram("mendian_inbox_lag_seconds", "Time from receiving a push to having applied it.",
			[]float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600}, "event"),
		background: counter("mendian_background_total", "Work done beside the requests, by what it is and outcome.", "work", "outcome"),
		circuits:   counter("mendian_circuit_changes_total", "Changes of the circuits that pause calls to WeChat, by family of calls and new state.", "family", "state"),
		retries:    counter("mendian_wechat_retries_total", "Reads of WeChat made again because no answer came, by call.", "call"),
	}
	trips := prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "mendian_database_round_trips_total",
		Help: "Round trips to Postgres that requests made."}, func() float64 { return float64(m.trips.Load()) })
	m.registry.MustRegister(m.requests, m.problems, m.authFailures, m.upstream, m.refreshes, m.ticketAge, m.pushes, m.applied, m.applyLag, m.background,
		m.circuits, m.retries,
		trips, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// RequestServed counts a request that was answered. route is the template
// ("/v1/stores/:id"), never the path.
func (m *Metrics) RequestServed(route, method string, status int, d time.Duration) {
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Observe(d.Seconds())
}

// ProblemAnswered counts an error answered, by its code of the catalogue.
func (m *Metrics) ProblemAnswered(code string) { m.problems.WithLabelValues(code).Inc() }

// AuthFailure counts a request refused for its API key.
func (m *Metrics) AuthFailure(reason string) { m.authFailures.WithLabelValues(reason).Inc() }

// UpstreamObserved counts a call to WeChat: its name ("store.add") and its
// class (executed, refused, ambiguous, …).
func (m *Metrics) UpstreamObserved(call, class string, d time.Duration) {
	m.upstream.WithLabelValues(call, class).Observe(d.Seconds())
}

// TokenRefreshed counts a refresh; kind is component or authorizer.
func (m *Metrics) TokenRefreshed(kind, outcome string) {
	m.refreshes.WithLabelValues(kind, outcome).Inc()
}

// TicketAge sets how old a tenant's newest ticket is.
func (m *Metrics) TicketAge(tenantID string, age time.Duration) {
	m.ticketAge.WithLabelValues(tenantID).Set(age.Seconds())
}

// TicketForgotten removes the age of a tenant that was closed.
func (m *Metrics) TicketForgotten(tenantID string) { m.ticketAge.DeleteLabelValues(tenantID) }

// PushReceived counts a push; kind is component or messages, outcome for
// example stored, repeated, bad_signature.
func (m *Metrics) PushReceived(kind, outcome string) { m.pushes.WithLabelValues(kind, outcome).Inc() }

// InboxApplied counts a push that the background job dealt with, lag after it
// was received. event comes from the closed set of events that we know;
// callers pass "other" for the rest.
func (m *Metrics) InboxApplied(event, outcome string, lag time.Duration) {
	m.applied.WithLabelValues(event, outcome).Inc()
	m.applyLag.WithLabelValues(event).Observe(lag.Seconds())
}

// BackgroundRan counts work beside the requests: outcome is done, failed or
// panicked.
func (m *Metrics) BackgroundRan(work, outcome string) {
	m.background.WithLabelValues(work, outcome).Inc()
}

// CircuitChanged counts a change of a tenant's circuit: its calls of a family
// are paused (open), one tries (half_open), all go through (closed).
func (m *Metrics) CircuitChanged(family, state string) {
	m.circuits.WithLabelValues(family, state).Inc()
}

// ReadRetried counts a read of WeChat that is made again, by its name.
func (m *Metrics) ReadRetried(call string) { m.retries.WithLabelValues(call).Inc() }

// Trips counts the round trips to Postgres that requests made, those of the
// background left out: warm, a read makes none.
func (m *Metrics) Trips() *atomic.Int64 { return &m.trips }

// Handler serves the metrics in Prometheus' format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
