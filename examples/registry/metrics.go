package main

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are what the server counts. Labels are few: the kind of a path and
// never the path.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec   // route, method, status
	seconds  *prometheus.HistogramVec // route, method
	inFlight prometheus.Gauge
	sent     prometheus.Counter
	failures prometheus.Counter
	runs     *prometheus.CounterVec // job, result
	lastRun  *prometheus.GaugeVec   // job
	removed  *prometheus.CounterVec // what
	freed    prometheus.Counter
	leading  prometheus.Gauge
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "registry_requests_total", Help: "Requests answered."}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "registry_request_seconds", Help: "Time from a request's header to the end of its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 120}}, []string{"route", "method"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "registry_requests_in_flight", Help: "Requests under way."}),
		sent:     prometheus.NewCounter(prometheus.CounterOpts{Name: "registry_sent_bytes_total", Help: "Bytes of answers."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "registry_store_failures_total", Help: "Failures of the stores."}),
		runs:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "registry_job_runs_total", Help: "Runs of scheduled jobs."}, []string{"job", "result"}),
		lastRun:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "registry_job_last_success_timestamp_seconds", Help: "When a job last ended well."}, []string{"job"}),
		removed:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "registry_collected_total", Help: "Things that collections removed."}, []string{"what"}),
		freed:    prometheus.NewCounter(prometheus.CounterOpts{Name: "registry_collected_bytes_total", Help: "Bytes that collections freed."}),
		leading:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "registry_leading", Help: "1 while this process runs the scheduled jobs."}),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.inFlight, m.sent, m.failures, m.runs, m.lastRun, m.removed, m.freed, m.leading,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// count counts the requests to next.
func (m *metrics) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin, route, method := time.Now(), routeOf(r.URL.Path), methodOf(r.Method)
		m.inFlight.Inc()
		c := &counted{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			m.inFlight.Dec()
			m.sent.Add(float64(c.sent))
			m.requests.WithLabelValues(route, method, strconv.Itoa(c.status)).Inc()
			m.seconds.WithLabelValues(route, method).Observe(time.Since(begin).Seconds())
		}()
		next.ServeHTTP(c, r)
	})
}

// routeOf names the kind of a path, parsed from the right as names contain
// slashes.
func routeOf(path string) string {
	switch parent := path[:strings.LastIndexByte(path, '/')+1]; {
	case path == "/v2/" || path == "/v2":
		return "ping"
	case path == "/v2/_catalog":
		return "catalog"
	case strings.HasSuffix(parent, "/blobs/uploads/"):
		return "upload"
	case strings.HasSuffix(parent, "/blobs/"):
		return "blob"
	case strings.HasSuffix(parent, "/manifests/"):
		return "manifest"
	case strings.HasSuffix(parent, "/referrers/"):
		return "referrers"
	case strings.HasSuffix(path, "/tags/list"):
		return "tags"
	}
	return "other"
}

// repoOf is the repository of a path to a manifest or a blob.
func repoOf(path string) (repo string, ok bool) {
	switch routeOf(path) {
	case "manifest":
		repo = path[:strings.LastIndex(path, "/manifests/")]
	case "blob":
		repo = path[:strings.LastIndex(path, "/blobs/")]
	default:
		return "", false
	}
	return strings.TrimPrefix(repo, "/v2/"), true
}

func methodOf(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE":
		return method
	}
	return "other"
}

// counted notes status and length of an answer.
type counted struct {
	http.ResponseWriter
	status int
	sent   int64
}

func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *counted) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.sent += int64(n)
	return n, err
}

// ReadFrom leaves it to the server to send a file without copying it.
func (c *counted) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(c.ResponseWriter, r)
	c.sent += n
	return n, err
}
