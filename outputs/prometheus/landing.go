package prometheus

import (
	"bytes"
	"html/template"

	"sockwatch/agent/plugin"
	"sockwatch/outputs/internal/respond"
)

// land answers with a small page for people: links to the other pages, and what the
// sources have published. The page may be public, so the reason why a source failed or
// something is missing is only in the log.
func (e *endpoint) land(board plugin.Board) (*respond.Response, error) {
	var page bytes.Buffer
	err := landing.Execute(&page, map[string]any{
		"Hostname": e.env.Hostname, "Metrics": e.opts.Path, "SD": sdPath, "Healthy": healthyPath, "Ready": readyPath,
		"Failed": failedSources(board), "Batches": board.Latest(),
	})
	if err != nil {
		return nil, err
	}
	return &respond.Response{Header: map[string]string{
		"Content-Type":            "text/html; charset=utf-8",
		"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
	}, Body: page.Bytes()}, nil
}

var landing = template.Must(template.New("landing").Parse(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>sockwatch{{with .Hostname}} on {{.}}{{end}}</title>
<style>body{font-family:sans-serif;margin:2em}td,th{text-align:left;padding-right:2em}</style></head>
<body>
<h1>sockwatch{{with .Hostname}} on {{.}}{{end}}</h1>
<ul>
<li><a href="{{.Metrics}}">Metrics</a></li>
<li><a href="{{.SD}}">Listeners, for Prometheus' HTTP service discovery</a></li>
<li><a href="{{.Healthy}}">Healthy</a>, <a href="{{.Ready}}">ready</a></li>
</ul>
{{- with .Failed}}
<p>Last gather failed: {{range $i, $name := .}}{{if $i}}, {{end}}{{$name}}{{end}}. The log has the reason.</p>
{{- end}}
{{- if .Batches}}
<table>
<tr><th>Source</th><th>Points</th><th>Gathered</th><th>Missing</th></tr>
{{- range .Batches}}
<tr><td>{{.Source}}</td><td>{{len .Points}}</td><td>{{.Time.Format "2006-01-02 15:04:05 MST"}}</td><td>{{if .Partial}}some data{{end}}</td></tr>
{{- end}}
</table>
{{- else}}
<p>Nothing has been gathered yet.</p>
{{- end}}
</body>
</html>
`))
