package influxdb

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// A client is an HTTP client that goes with the certificates on disk.
type client struct {
	options Options
	http    *http.Client
	pem     [3][]byte // contents of tls_ca, tls_cert and tls_key that http was made of
}

// refresh makes a new client where the certificates were replaced since the last
// request, or where there is none yet.
func (c *client) refresh() error {
	var pem [3][]byte
	for i, f := range []struct{ option, path string }{
		{"tls_ca", c.options.TLSCA}, {"tls_cert", c.options.TLSCert}, {"tls_key", c.options.TLSKey},
	} {
		if f.path == "" {
			continue
		}
		var err error
		if pem[i], err = os.ReadFile(f.path); err != nil {
			return fmt.Errorf("%s: %w", f.option, err)
		}
	}
	if c.http != nil && bytes.Equal(pem[0], c.pem[0]) && bytes.Equal(pem[1], c.pem[1]) && bytes.Equal(pem[2], c.pem[2]) {
		return nil
	}
	config := &tls.Config{ServerName: c.options.TLSServerName, InsecureSkipVerify: c.options.InsecureSkipVerify}
	if c.options.TLSCA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem[0]) {
			return fmt.Errorf("tls_ca: %q holds no certificate in PEM", c.options.TLSCA)
		}
	}
	if c.options.TLSCert != "" {
		cert, err := tls.X509KeyPair(pem[1], pem[2])
		if err != nil {
			return fmt.Errorf("tls_cert: %q: %w", c.options.TLSCert, err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	c.close()
	c.pem = pem
	c.http = &http.Client{
		// A server that sends elsewhere may send the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig:        config,
			DisableCompression:     true, // what is read is bounded as it comes
			MaxResponseHeaderBytes: maxAnswer,
			IdleConnTimeout:        90 * time.Second,
		},
	}
	return nil
}

func (c *client) close() {
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}

// Close closes what connections are left.
func (o *output) Close() error {
	o.client.close()
	return nil
}
