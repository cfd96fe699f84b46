package livepage

import (
	"bytes"
	"html/template"
	"time"
)

func newTemplates(p *Page) *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"asset": p.assets.url,
		"row":   p.row,
		"clock": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
		"stamp": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	}).ParseFS(templateFiles, "templates/*.html"))
}

// render returns one template as text.
func (p *Page) render(name string, data any) (template.HTML, error) {
	var b bytes.Buffer
	err := p.templates.ExecuteTemplate(&b, name, data)
	return template.HTML(b.String()), err
}
