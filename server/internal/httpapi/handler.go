package httpapi

import (
	"net"
	"net/http"
	"net/netip"

	"github.com/labstack/echo/v4"

	"activerelay/api/rest"
)

// Handler is what every request passes, in this order. Recover comes twice, so that a panic in a handler has its line in
// the access log and one in the access log does not end the program.
func (a *API) Handler() http.Handler {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = a.HandleError
	e.JSONSerializer = bodies{}
	e.IPExtractor = clientAddress(a.TrustedProxies)
	e.Use(
		a.Recover,
		a.Name,
		a.AccessLog,
		a.Recover,
		a.LimitByAddress,
		a.Limit,
		a.Authenticate,
		a.LimitByPrincipal,
		a.Authorise,
		a.Validate,
	)
	rest.RegisterHandlers(e, a.Handlers())
	return e
}

// clientAddress says who a request is from: who connected, or what the last trusted proxy has seen.
func clientAddress(proxies []netip.Prefix) echo.IPExtractor {
	if len(proxies) == 0 {
		return echo.ExtractIPDirect()
	}
	trust := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, proxy := range proxies {
		trust = append(trust, echo.TrustIPRange(&net.IPNet{
			IP: proxy.Addr().AsSlice(), Mask: net.CIDRMask(proxy.Bits(), proxy.Addr().BitLen()),
		}))
	}
	return echo.ExtractIPFromXFFHeader(trust...)
}
