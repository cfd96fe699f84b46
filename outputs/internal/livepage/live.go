package livepage

import "net/http"

// stream answers /stream.
func (p *Page) stream(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }
