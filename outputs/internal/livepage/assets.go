package livepage

import "embed"

//go:embed assets
var assetFiles embed.FS

//go:embed templates
var templateFiles embed.FS

// assets are the files that the page loads.
type assets struct {
	urls map[string]string // by name
}

func newAssets() assets {
	return assets{urls: map[string]string{}}
}

// url returns the URL of an asset. It contains a hash of its content.
func (a assets) url(name string) string { return a.urls[name] }
