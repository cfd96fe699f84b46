package livepage

import (
	"bytes"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"sockwatch/outputs/internal/respond"
)

func newTemplates(p *Page) *template.Template {
	t := template.New("").Funcs(template.FuncMap{
		"asset": p.assets.url,
		"row":   p.row,
		"clock": clock,
		"count": count,
		"stamp": func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
	})
	return template.Must(template.Must(t.Parse(cellsTemplate())).ParseFS(templateFiles, "templates/*.html"))
}

// render returns one template as text.
func (p *Page) render(name string, data any) (template.HTML, error) {
	var b bytes.Buffer
	err := p.templates.ExecuteTemplate(&b, name, data)
	return template.HTML(b.String()), err
}

// A document is an HTML page.
type document struct {
	Name     string // of its template
	Title    string
	Hostname string
	Version  string
	Made     time.Time
	Nav      []navLink
	Data     any // view, healthView, ...
}

// A navLink is a link in the head of each page.
type navLink struct {
	Link
	Here bool
}

// html returns a response with an HTML page.
func (p *Page) html(name, title string, status int, data any) (*respond.Response, error) {
	d := document{Name: name, Title: title, Hostname: p.opts.Hostname, Version: version(p.board.Latest()), Made: time.Now(), Data: data}
	pages := []Link{{"Listeners", rootPath}, {"Changes", eventsPath}, {"Health", healthPath}}
	for i, l := range append(pages, p.opts.Links...) {
		d.Nav = append(d.Nav, navLink{l, i < len(pages) && l.Text == title})
	}
	var b bytes.Buffer
	if err := p.templates.ExecuteTemplate(&b, name, d); err != nil {
		return nil, err
	}
	return &respond.Response{Status: status, Header: map[string]string{"Content-Type": "text/html; charset=utf-8"}, Body: b.Bytes()}, nil
}

// compressed returns do with its response compressed, if the client accepts that.
func compressed(r *http.Request, do func() (*respond.Response, error)) func() (*respond.Response, error) {
	return func() (*respond.Response, error) {
		resp, err := do()
		if err != nil {
			return nil, err
		}
		resp.Header["Vary"] = "Accept-Encoding"
		if acceptsGzip(r) {
			resp.Header["Content-Encoding"] = "gzip"
			resp.Body = compress(resp.Body)
		}
		return resp, nil
	}
}

// count returns a number of things: "1 listener", "2 listeners".
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}
