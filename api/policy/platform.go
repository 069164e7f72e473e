package policy

import (
	"net/netip"
	"strings"
	"time"

	"activerelay/api"
	"activerelay/api/quota"
)

// defaultPlatform is what holds before the first document: the defaults of the
// contract, which are the strict ones.
func defaultPlatform() *Platform {
	return &Platform{
		QuotaUnit:            quota.UnitMessage,
		BulkMode:             api.BulkModeRefuse,
		MaxRecipients:        100,
		MaxMessageBytes:      25 << 20,
		MaxPolicyAge:         30 * time.Second,
		RefuseUsersOverLimit: true,
		SuspendedDefer:       24 * time.Hour,
		NoticeFrom:           "postmaster@activerelay.invalid",
	}
}

// compilePlatform keeps the strict default of every setting that it cannot
// read: settings loosen rules, and an unreadable one must loosen nothing.
func compilePlatform(d *api.PlatformPolicy, f *faults) *Platform {
	p := defaultPlatform()
	if d == nil {
		f.add("body is missing", "/platform")
		p.unknown |= partRoutes
		return p
	}
	s := d.Settings
	p.AllowUnscanned = s.AllowUnscanned
	p.AllowTargets = compileTargets(s.AllowTargetNetworks, f)
	p.BulkAutoSubmitted = s.BulkRefuseAutoSubmitted
	p.compileChoices(s, f)
	p.compileFigures(s, f)
	if s.NoticeFrom != "" {
		p.NoticeFrom = s.NoticeFrom
	}
	p.routes = compileRoutes(d.Routes, func(rule, path string, args ...any) {
		p.unknown |= partRoutes
		f.add(rule, path, args...)
	})
	p.limits = compileLimits(d.DestinationLimits, f)
	return p
}

// compileLimits leaves out what it cannot read: such a destination is treated
// like any other.
func compileLimits(list []api.DestinationLimitPolicy, f *faults) map[string]DestinationLimit {
	var limits map[string]DestinationLimit
	for i, l := range list {
		limit := DestinationLimit{MaxConnections: deref(l.MaxConnections), MessagesPerMinute: deref(l.MessagesPerMinute)}
		if l.Destination == "" || limit.MaxConnections < 0 || limit.MessagesPerMinute < 0 {
			f.add("names no destination, or is negative", "/destination_limits/%d", i)
			continue
		}
		if limits == nil {
			limits = make(map[string]DestinationLimit, len(list))
		}
		limits[strings.Clone(l.Destination)] = limit
	}
	return limits
}

// DestinationLimit is the limits of a recipient domain or of a smarthost's host,
// both in canonical form. The zero value is for one without limits of its own.
func (p *Platform) DestinationLimit(destination string) DestinationLimit {
	return p.limits[destination]
}

func (p *Platform) compileChoices(s api.Settings, f *faults) {
	switch {
	case s.QuotaUnit.Valid():
		p.QuotaUnit = quota.Unit(s.QuotaUnit)
	default:
		f.add("is not a known choice", "/settings/quota_unit")
	}
	switch {
	case s.BulkMode.Valid():
		p.BulkMode = s.BulkMode
	default:
		f.add("is not a known choice", "/settings/bulk_mode")
	}
	switch {
	case s.QuotaReachedReplyServer.Valid():
		p.RefuseServersOverLimit = s.QuotaReachedReplyServer == api.SettingsQuotaReachedReplyServerRefuse
	default:
		f.add("is not a known choice", "/settings/quota_reached_reply_server")
	}
	switch {
	case s.QuotaReachedReplyUser.Valid():
		p.RefuseUsersOverLimit = s.QuotaReachedReplyUser == api.SettingsQuotaReachedReplyUserRefuse
	default:
		f.add("is not a known choice", "/settings/quota_reached_reply_user")
	}
	switch {
	case s.BareNewline.Valid():
		p.NormaliseNewlines = s.BareNewline == api.SettingsBareNewlineNormalise
	default:
		f.add("is not a known choice", "/settings/bare_newline")
	}
}

func (p *Platform) compileFigures(s api.Settings, f *faults) {
	if s.BulkRecipientCap >= 0 {
		p.BulkRecipientCap = s.BulkRecipientCap
	} else {
		f.add("is negative", "/settings/bulk_recipient_cap")
	}
	if s.MaxRecipients >= 1 {
		p.MaxRecipients = s.MaxRecipients
	} else {
		f.add("is not positive", "/settings/max_recipients")
	}
	if s.MaxMessageBytes >= 1 {
		p.MaxMessageBytes = s.MaxMessageBytes
	} else {
		f.add("is not positive", "/settings/max_message_bytes")
	}
	if s.MaxPolicyAgeSeconds >= 1 {
		p.MaxPolicyAge = time.Duration(min(s.MaxPolicyAgeSeconds, 86_400)) * time.Second
	} else {
		f.add("is not positive", "/settings/max_policy_age_seconds")
	}
	if s.SuspendedDeferHours >= 0 {
		p.SuspendedDefer = time.Duration(min(s.SuspendedDeferHours, 720)) * time.Hour
	} else {
		f.add("is negative", "/settings/suspended_defer_hours")
	}
}

func compileTargets(list []string, f *faults) []netip.Prefix {
	var targets []netip.Prefix
	for i, network := range list {
		prefix, ok := parsePrefix(network)
		if !ok {
			f.add("is not an address or prefix", "/settings/allow_target_networks/%d", i)
			continue
		}
		targets = append(targets, prefix)
	}
	return targets
}
