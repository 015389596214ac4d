package handlers

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"

	"github.com/labstack/echo/v4"
	echoswagger "github.com/swaggo/echo-swagger"

	"github.com/mendian/mendian/api"
	"github.com/mendian/mendian/internal/problem"
)

// docs serves the contract, the Swagger page, and a page for each error code.
// The pages of codes are there even where the Swagger page is not: problem
// documents point to them.
func (e *Edge) docs() error {
	e.GET("/openapi.yaml", func(c echo.Context) error { return c.Blob(http.StatusOK, "application/yaml", api.Spec) })
	e.GET("/docs/problems/:code", explain)
	if !e.cfg.Docs {
		return nil
	}
	toIndex := func(c echo.Context) error { return c.Redirect(http.StatusFound, "/docs/index.html") }
	// Before the wildcard: by itself echo-swagger answers /docs/ with a
	// redirect to /docs//index.html, and doc.json with a 500.
	e.GET("/", toIndex) // what a browser asks for first
	e.GET("/docs", toIndex)
	e.GET("/docs/", toIndex)
	for _, path := range []string{"/docs/doc.json", "/docs/doc.yaml"} {
		e.GET(path, func(echo.Context) error { return problem.Of(problem.CodeNotFound) })
	}
	ui := echoswagger.EchoWrapHandler(func(c *echoswagger.Config) { c.URLs = []string{"/openapi.yaml"} })
	policy, err := uiPolicy(ui)
	if err != nil {
		return err
	}
	e.GET("/docs/*", func(c echo.Context) error {
		c.Response().Header().Set("Content-Security-Policy", policy)
		c.Response().Header().Set("X-Frame-Options", "DENY")
		return ui(c)
	})
	return nil
}

var inlineScript = regexp.MustCompile(`(?s)<script>(.*?)</script>`)

// uiPolicy renders the Swagger page once and allows exactly its inline script.
func uiPolicy(ui echo.HandlerFunc) (string, error) {
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/docs/index.html", nil)
	if err := ui(echo.New().NewContext(r, w)); err != nil {
		return "", err
	}
	page, err := io.ReadAll(w.Result().Body)
	if err != nil {
		return "", err
	}
	script := inlineScript.FindSubmatch(page)
	if script == nil {
		return "", errors.New("handlers: the Swagger page has no inline script")
	}
	sum := sha256.Sum256(script[1])
	return fmt.Sprintf("default-src 'self'; script-src 'self' 'sha256-%s'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
		base64.StdEncoding.EncodeToString(sum[:])), nil
}

var explainPage = template.Must(template.New("problem").Parse(`<!DOCTYPE html>
<html lang="{{.Lang}}"><head><meta charset="utf-8"><title>{{.Code}}</title>
<style>body{font:16px/1.5 sans-serif;max-width:40em;margin:3em auto;padding:0 1em}code{background:#eee;padding:.1em .3em}</style></head>
<body><h1><code>{{.Code}}</code></h1><p>HTTP {{.Status}} · {{.Title}}</p><p>{{.Detail}}</p>
{{if .Retryable}}<p>{{if eq .Lang "zh"}}稍后重试同一请求可能成功（见 <code>retry_after_seconds</code>）。{{else}}The same request can succeed later; see <code>retry_after_seconds</code>.{{end}}</p>{{end}}
<hr><p lang="{{.OtherLang}}">{{.OtherTitle}}: {{.OtherDetail}}</p></body></html>
`))

// explain is the page that the type of a problem document names.
func explain(c echo.Context) error {
	code := c.Param("code")
	if !problem.Known(code) {
		return problem.Of(problem.CodeNotFound)
	}
	lang, other := problem.Language(c.Request().Header.Get("Accept-Language")), "zh"
	if lang == "zh" {
		other = "en"
	}
	page := struct {
		Code, Lang, OtherLang, Title, Detail, OtherTitle, OtherDetail string
		Status                                                        int
		Retryable                                                     bool
	}{Code: code, Lang: lang, OtherLang: other, Status: problem.KindOf(code).Status(), Retryable: problem.Retryable(code)}
	page.Title, page.Detail = problem.Text(code, lang)
	page.OtherTitle, page.OtherDetail = problem.Text(code, other)
	h := c.Response().Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", lang)
	h.Set("Vary", "Accept-Language")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	return explainPage.Execute(c.Response(), page)
}

// health answers load balancers. Why a process is not ready is for operators:
// the admin listener says it.
func (e *Edge) health() {
	e.GET("/healthz", func(c echo.Context) error { return sayPlain(c, http.StatusOK, "ok\n") })
	e.GET("/readyz", func(c echo.Context) error {
		if e.stopping.Load() || e.cfg.Ready(c.Request().Context()) != nil {
			return sayPlain(c, http.StatusServiceUnavailable, "not ready\n")
		}
		return sayPlain(c, http.StatusOK, "ready\n")
	})
}

func sayPlain(c echo.Context, status int, text string) error {
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.String(status, text)
}
