package httpapi

import (
	"context"
	"net/netip"

	"activerelay/api"
	"activerelay/api/mailaddr"
	"activerelay/api/rest"
	"activerelay/server/internal/store"
)

// GetSettings shows the settings of the platform.
func (a *API) GetSettings(ctx context.Context, _ rest.GetSettingsRequestObject) (rest.GetSettingsResponseObject, error) {
	var row store.Settings
	err := a.Store.Read(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		row, err = tx.Settings()
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.GetSettings200JSONResponse{SettingsResponseJSONResponse: settingsResponse(row)}, nil
}

// UpdateSettings changes the settings that the merge patch names.
func (a *API) UpdateSettings(ctx context.Context, r rest.UpdateSettingsRequestObject) (rest.UpdateSettingsResponseObject, error) {
	patch, err := checkedSettings(*r.Body)
	if err != nil {
		return nil, err
	}
	var row store.Settings
	err = a.Store.Write(ctx, PrincipalFrom(ctx).Tenant(), func(tx *store.Tx) (err error) {
		if row, err = tx.LockSettings(); err != nil {
			return err
		}
		if err := ifMatch(r.Params.IfMatch, row.Version); err != nil {
			return err
		}
		before := settingsToAPI(row)
		applyAdmission(&row, patch)
		applyQuota(&row, patch)
		after := settingsToAPI(row)
		if same, err := unchanged(before, after); same || err != nil {
			return err
		}
		if err := tx.UpdateSettings(&row); err != nil {
			return err
		}
		if err := publishSettings(tx, before, after); err != nil {
			return err
		}
		return a.audit(ctx, tx, change{object: "settings/platform", before: before, after: after})
	})
	if err != nil {
		return nil, err
	}
	return rest.UpdateSettings200JSONResponse{SettingsResponseJSONResponse: settingsResponse(row)}, nil
}

// publishSettings publishes the platform's document and those of the domains whose limit or zone follows from it.
func publishSettings(tx *store.Tx, before, after api.Settings) error {
	tx.Publish(store.PlatformKey)
	switch {
	case before.QuotaFloor != after.QuotaFloor, before.QuotaPerUser != after.QuotaPerUser:
		return tx.PublishDomains("", false)
	case before.DefaultTimeZone != after.DefaultTimeZone:
		return tx.PublishDomains("", true)
	default:
		return nil
	}
}

// checkedSettings holds a patch to the rules that the contract cannot state, and brings networks to their canonical form.
func checkedSettings(patch api.SettingsPatch) (api.SettingsPatch, error) {
	if patch.DefaultTimeZone != nil {
		if _, err := timeZone("/default_time_zone", *patch.DefaultTimeZone); err != nil {
			return patch, err
		}
	}
	if patch.NoticeFrom != nil {
		address, err := mailaddr.Parse(*patch.NoticeFrom, mailaddr.Options{})
		if err != nil {
			return patch, invalid("/notice_from", "email", "is not an e-mail address: "+err.Error())
		}
		canonical := address.String()
		patch.NoticeFrom = &canonical
	}
	if patch.AllowTargetNetworks != nil {
		networks, err := prefixes("/allow_target_networks", patch.AllowTargetNetworks)
		if err != nil {
			return patch, err
		}
		patch.AllowTargetNetworks = networks
	}
	return patch, nil
}

// prefixes reads addresses and prefixes into canonical CIDR form.
func prefixes(pointer string, texts []string) ([]string, error) {
	canonical := make([]string, 0, len(texts))
	for i, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			address, addressErr := netip.ParseAddr(text)
			if addressErr != nil || address.Zone() != "" {
				return nil, invalid(indexed(pointer, i), "network", "is not an IP address or a prefix, e.g. 192.0.2.0/24")
			}
			prefix = netip.PrefixFrom(address.Unmap(), address.Unmap().BitLen())
		}
		canonical = append(canonical, prefix.Masked().String())
	}
	return canonical, nil
}

// set writes a value that is named.
func set[T, U any](to *T, named *U, as func(U) T) {
	if named != nil {
		*to = as(*named)
	}
}

func same[T any](value T) T { return value }

func word[T ~string](value T) string { return string(value) }

func applyAdmission(row *store.Settings, patch api.SettingsPatch) {
	set(&row.DefaultTimeZone, patch.DefaultTimeZone, same)
	set(&row.RelayIPActivation, patch.RelayIPActivation, word)
	set(&row.AllowUnscanned, patch.AllowUnscanned, same)
	if patch.AllowTargetNetworks != nil {
		row.AllowTargetNetworks = patch.AllowTargetNetworks
	}
	set(&row.BulkMode, patch.BulkMode, word)
	set(&row.BulkRefuseAutoSubmitted, patch.BulkRefuseAutoSubmitted, same)
	set(&row.BulkRecipientCap, patch.BulkRecipientCap, same)
	set(&row.MaxRecipients, patch.MaxRecipients, same)
	set(&row.MaxMessageBytes, patch.MaxMessageBytes, same)
	set(&row.MaxPolicyAgeSeconds, patch.MaxPolicyAgeSeconds, same)
	set(&row.SuspendedDeferHours, patch.SuspendedDeferHours, same)
	set(&row.BareNewline, patch.BareNewline, word)
}

func applyQuota(row *store.Settings, patch api.SettingsPatch) {
	set(&row.QuotaFloor, patch.QuotaFloor, same)
	set(&row.QuotaPerUser, patch.QuotaPerUser, same)
	set(&row.QuotaUnit, patch.QuotaUnit, word)
	set(&row.QuotaReachedReplyServer, patch.QuotaReachedReplyServer, word)
	set(&row.QuotaReachedReplyUser, patch.QuotaReachedReplyUser, word)
	set(&row.NoticeFrom, patch.NoticeFrom, same)
	set(&row.NoticePercent, patch.NoticePercent, same)
	if thresholds := patch.ComplaintThresholds; thresholds != nil {
		set(&row.ComplaintsUser, thresholds.User, same)
		set(&row.ComplaintsRelayIP, thresholds.RelayIP, same)
		set(&row.ComplaintsDomain, thresholds.Domain, same)
		set(&row.ComplaintsPartner, thresholds.Partner, same)
		set(&row.ComplaintsWindowHours, thresholds.WindowHours, same)
	}
}

func settingsResponse(row store.Settings) rest.SettingsResponseJSONResponse {
	return rest.SettingsResponseJSONResponse{
		Body: settingsToAPI(row), Headers: rest.SettingsResponseResponseHeaders{ETag: etag(row.Version)},
	}
}

// settingsToAPI is the wire form of the settings.
func settingsToAPI(row store.Settings) api.Settings {
	networks := []string(row.AllowTargetNetworks)
	if networks == nil {
		networks = []string{}
	}
	return api.Settings{
		QuotaFloor: row.QuotaFloor, QuotaPerUser: row.QuotaPerUser, QuotaUnit: api.QuotaUnit(row.QuotaUnit),
		DefaultTimeZone:   row.DefaultTimeZone,
		RelayIPActivation: api.SettingsRelayIPActivation(row.RelayIPActivation),
		AllowUnscanned:    row.AllowUnscanned, AllowTargetNetworks: networks,
		BulkMode: api.BulkMode(row.BulkMode), BulkRefuseAutoSubmitted: row.BulkRefuseAutoSubmitted,
		BulkRecipientCap: row.BulkRecipientCap, MaxRecipients: row.MaxRecipients, MaxMessageBytes: row.MaxMessageBytes,
		MaxPolicyAgeSeconds:     row.MaxPolicyAgeSeconds,
		QuotaReachedReplyServer: api.SettingsQuotaReachedReplyServer(row.QuotaReachedReplyServer),
		QuotaReachedReplyUser:   api.SettingsQuotaReachedReplyUser(row.QuotaReachedReplyUser),
		SuspendedDeferHours:     row.SuspendedDeferHours, BareNewline: api.SettingsBareNewline(row.BareNewline),
		NoticeFrom: row.NoticeFrom, NoticePercent: row.NoticePercent,
		ComplaintThresholds: api.ComplaintThresholds{
			User: row.ComplaintsUser, RelayIP: row.ComplaintsRelayIP, Domain: row.ComplaintsDomain,
			Partner: row.ComplaintsPartner, WindowHours: row.ComplaintsWindowHours,
		},
	}
}
