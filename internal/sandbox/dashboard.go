package sandbox

import (
	"bytes"
	"html/template"
	"net/http"
	"slices"
)

var dashboardTemplate = template.Must(template.New("dashboard").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>WeChat simulator</title>
<style>body{font:14px/1.4 system-ui;margin:2em;max-width:75em}table{border-collapse:collapse;width:100%;margin-bottom:1.5em}
td,th{border-bottom:1px solid #ccc;padding:.25em .5em;text-align:left;vertical-align:top;word-break:break-word}form{display:inline}</style></head>
<body><h1>WeChat simulator</h1>
<p>Component {{.Component.AppID}} · pushes go to {{or .Component.PushURL "nowhere yet"}} · virtual time {{.Now}}
<form method="post" action="/_sandbox/pushes"><input type="hidden" name="hold" value="{{not .Hold}}"><button>{{if .Hold}}release pushes and audits{{else}}hold pushes and audits{{end}}</button></form>
<form method="post" action="/_sandbox/clock"><input name="advance" value="72h" size="6"><button>advance the clock</button></form></p>
<h2>Accounts</h2><table><tr><th>appid</th><th>kind</th><th>name</th><th>authorised</th><th>sets</th><th>store program</th><th>stores</th><th>legacy stores</th><th>goods</th></tr>
{{range .Accounts}}<tr><td>{{.AppID}}</td><td>{{.Kind}}</td><td>{{.Nickname}}</td><td>{{.Authorized}}</td><td>{{.Sets}}</td><td>{{.Program.State}}</td><td>{{.Stores}}</td><td>{{.Legacy}}</td><td>{{.Goods}}</td></tr>
{{end}}</table>
<h2>Audits</h2><table><tr><th>kind</th><th>id</th><th>appid</th><th>about</th><th>status</th><th></th></tr>
{{range .Audits}}<tr><td>{{.Kind}}</td><td>{{.ID}}</td><td>{{.AppID}}</td><td>{{.Subject}}</td><td>{{.Status}}{{if .AwaitsAdmin}}, waits for the administrator{{end}} {{.Reason}}</td><td>{{if .AwaitsAdmin}}{{if eq .Status "pending"}}
<form method="post" action="/_sandbox/audits/{{.Kind}}/{{.ID}}"><input type="hidden" name="decision" value="confirm"><button>confirm</button></form>
<form method="post" action="/_sandbox/audits/{{.Kind}}/{{.ID}}"><input type="hidden" name="decision" value="admin_reject"><input name="reason" placeholder="reason" size="12"><button>refuse</button></form>{{end}}{{else if eq .Status "pending"}}
<form method="post" action="/_sandbox/audits/{{.Kind}}/{{.ID}}"><input type="hidden" name="decision" value="approve"><button>approve</button></form>
<form method="post" action="/_sandbox/audits/{{.Kind}}/{{.ID}}"><input type="hidden" name="decision" value="reject"><input name="reason" placeholder="reason" size="12"><button>reject</button></form>{{end}}</td></tr>
{{end}}</table>
<h2>Goods</h2><table><tr><th>goodsId</th><th>appid</th><th>name</th><th>price, fen</th><th>audit_status</th><th>third_party_tag</th></tr>
{{range .Goods}}<tr><td>{{.ID}}</td><td>{{.AppID}}</td><td>{{.Name}}</td><td>{{.Price}}{{if .Price2}} {{.Price2}}{{end}}</td><td>{{.Status}}</td><td>{{.Tag}}</td></tr>
{{end}}</table>
<h2>Release check</h2><form method="post" action="/_sandbox/release-check"><button>run it</button></form>
{{with .Released}}<p>{{if .Passed}}passed{{else}}failed{{end}}</p><table><tr><th>check</th><th>appid</th><th>sent</th><th>want</th><th>got</th><th></th></tr>
{{range .Checks}}<tr><td>{{.Check}}</td><td>{{.AppID}}</td><td>{{.Sent}}</td><td>{{.Want}}</td><td>{{.Got}}</td><td>{{if .Passed}}passed{{else}}{{.Reason}}{{end}}</td></tr>
{{end}}</table>{{end}}
<h2>Last requests</h2><table><tr><th>seq</th><th>time</th><th>call</th><th>body</th><th>reply</th></tr>
{{range .Requests}}<tr><td>{{.Seq}}</td><td>{{.Time.Format "15:04:05.000"}}</td><td>{{.Method}} {{.Path}}</td><td>{{printf "%.300s" .Body}}</td><td>{{.Status}} {{printf "%.300s" .Reply}}</td></tr>
{{end}}</table>
<h2>Last pushes</h2><table><tr><th>id</th><th>what</th><th>appid</th><th>status</th><th>attempts</th><th>error</th></tr>
{{range .Pushes}}<tr><td>{{.ID}}</td><td>{{.Name}}</td><td>{{.AppID}}</td><td>{{.Status}}</td><td>{{.Attempts}}</td><td>{{.LastError}}</td></tr>
{{end}}</table></body></html>
`))

const dashboardRows = 25

// dashboard is the page for people: what there is, what waits, what happened last, newest first.
func (s *Server) dashboard(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	data := struct {
		Component component
		Now       string
		Hold      bool
		Accounts  []accountReply
		Audits    []*audit
		Requests  []journalEntry
		Pushes    []*push
		Goods     []*goods
		Released  *releaseReport
	}{Component: s.st.Component, Now: s.now().Format("2006-01-02 15:04:05"), Hold: s.st.Hold, Released: s.released}
	for _, a := range s.st.accounts.sorted(nil, bySeq) {
		data.Accounts = append(data.Accounts, s.showAccount(a))
	}
	data.Audits = newest(s.st.audits.sorted(nil, bySeq))
	data.Pushes = newest(s.st.pushes.sorted(nil, bySeq))
	data.Goods = newest(s.st.goods.sorted(nil, bySeq))
	data.Requests = newest(s.journal.since(s.journal.last-dashboardRows, ""))
	var b bytes.Buffer
	err := dashboardTemplate.Execute(&b, data)
	s.mu.Unlock()
	if err != nil {
		serverError(err).write(w)
		return
	}
	answer{http.StatusOK, "text/html; charset=utf-8", "", b.Bytes()}.write(w)
}

func newest[T any](list []T) []T {
	list = slices.Clone(list[max(0, len(list)-dashboardRows):])
	slices.Reverse(list)
	return list
}
