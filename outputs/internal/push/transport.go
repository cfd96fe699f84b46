package push

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// A transport makes connections, with the certificates that are on disk at that time.
type transport struct {
	options  *Transport
	pemFiles [3]*file  // tls_ca, tls_cert and tls_key
	pem      [3][]byte // their contents when http was made
	http     *http.Client
}

func newTransport(o *Transport) *transport {
	t := &transport{options: o}
	for i, f := range []struct{ option, path string }{
		{"tls_ca", o.TLSCA}, {"tls_cert", o.TLSCert}, {"tls_key", o.TLSKey},
	} {
		t.pemFiles[i] = newFile(f.option, f.path, maxPEM)
	}
	return t
}

// maxPEM is the maximum size of a certificate file. Bundles of all public authorities are
// about 256 KiB.
const maxPEM = 4 << 20

// refresh reads the certificate files again, since they may have been replaced after the
// last request. It makes a new HTTP client for the first request, and if the certificates
// have changed.
func (t *transport) refresh(ctx context.Context) error {
	var pem [3][]byte
	same := t.http != nil
	for i, f := range t.pemFiles {
		if f.path == "" {
			continue
		}
		content, err := f.read(ctx)
		if err != nil {
			return err
		}
		pem[i] = content.data
		same = same && bytes.Equal(pem[i], t.pem[i])
	}
	if same {
		return nil
	}
	config, err := t.tlsConfig(pem)
	if err != nil {
		return err
	}
	proxy, err := t.options.proxy()
	if err != nil {
		return err
	}
	t.close()
	t.pem, t.http = pem, newHTTPClient(config, proxy)
	return nil
}

// tlsConfig returns the TLS configuration for the options and the contents of tls_ca,
// tls_cert and tls_key.
func (t *transport) tlsConfig(pem [3][]byte) (*tls.Config, error) {
	config := &tls.Config{ServerName: t.options.TLSServerName, InsecureSkipVerify: t.options.InsecureSkipVerify}
	if t.options.TLSCA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem[0]) {
			return nil, fmt.Errorf("tls_ca: %q contains no PEM certificate", t.options.TLSCA)
		}
	}
	if t.options.TLSCert != "" {
		cert, err := tls.X509KeyPair(pem[1], pem[2])
		if err != nil {
			return nil, fmt.Errorf("tls_cert: %q: %w", t.options.TLSCert, err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

// A proxyFunc returns the proxy for a request, or nil for none.
type proxyFunc func(*http.Request) (*url.URL, error)

// proxy returns the proxy of the options, or else of the environment, which is never used for
// loopback.
func (o *Transport) proxy() (proxyFunc, error) {
	if o.HTTPProxyURL == "" {
		return http.ProxyFromEnvironment, nil
	}
	u, err := parseProxyURL(o.HTTPProxyURL)
	if err != nil {
		return nil, fmt.Errorf("http_proxy_url: %w", err)
	}
	return http.ProxyURL(u), nil
}

func newHTTPClient(config *tls.Config, proxy proxyFunc) *http.Client {
	return &http.Client{
		// A redirect can lead to a host that must not see the data and the secrets, or from
		// https to http.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  proxy,
			OnProxyConnectResponse: checkConnect,
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig:        config,
			DisableCompression:     true, // readResponse decompresses, up to a limit
			MaxResponseHeaderBytes: maxResponse,
			IdleConnTimeout:        90 * time.Second,
			ExpectContinueTimeout:  time.Second,
		},
	}
}

// checkConnect returns an error if a proxy refuses a connection to a server. The error of
// net/http is the name of the status alone.
func checkConnect(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusProxyAuthRequired:
		return fmt.Errorf("the proxy %s answers CONNECT with %s: check its user and password", proxy.Host, statusLine(resp.StatusCode))
	default:
		return fmt.Errorf("the proxy %s answers CONNECT with %s", proxy.Host, statusLine(resp.StatusCode))
	}
}

// withoutURL removes the URL from an error of net/http or net/url. Callers add the
// server's name, which is enough.
func withoutURL(err error) error {
	if uerr, ok := errors.AsType[*url.Error](err); ok {
		return uerr.Err
	}
	return err
}

func (t *transport) close() {
	if t.http != nil {
		t.http.CloseIdleConnections()
	}
}
