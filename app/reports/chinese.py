"""What the catalogue says, in Chinese: for the administrators who must defend a figure.

Fields keep their names in formulas, so that both languages speak of the same columns.
"""

from collections.abc import Mapping

from app.reports.ranking import OF_SCANS, WITH_SILENCE
from app.reports.rules.ranking import FEWEST_PEERS
from app.reports.rules.rates import COVERAGE
from app.reports.rules.suppression import K

REPORTS: Mapping[str, tuple[str, str]] = {
    "visits": ("到访", "谁来了、什么时候来、待了多久，以及谁没能进来"),
    "access": ("扫码开门", "扫码得到什么结果，门开得多快"),
    "occupancy": ("在站人数", "站内有多少人，有多满"),
    "facilities": ("设施使用", "用了什么、用了几次、用了多久"),
    "promise": ("兑现承诺", "承诺开放的时间里，驿站是不是真的能用"),
    "occupations": ("职业构成", "来的人做什么工作；只按整月，人数少的格子不显示"),
    "ranking": ("同类排名", "按一项指标，驿站在同类中排在哪里"),
    "controllers": ("控制器", "哪些控制器有联系，它们的开门指令结果如何"),
}
"""What each report is called, and what it says."""

PRIVACY = "只有地点和时间的次数与比率，不含任何人；服务人数只是一个数，超出保留期则为空"
PRIVACY_OF: Mapping[str, str] = {
    "occupations": (
        f"不同的人少于 {K} 个的格子不显示（含 0），能推算出它们的格子也不显示；"
        "只按已结束的整月和组织树上的地点"
    ),
    "facilities": "只有地点上物件的次数与时间，不含任何人",
    "promise": "只有地点的时间，与人无关",
    "ranking": (
        "只列出您范围内的驿站；对其他驿站只说有多少个比它少，同类少于 "
        f"{FEWEST_PEERS} 个则什么都不说"
    ),
    "controllers": "只有指令的次数和设备的状态，不含任何人",
}

HARDLY = (
    "有值守时间、而 (covered_hours - heads_only_hours) / staffed_hours 低于 "
    f"{COVERAGE} 也为空：来的人多半没有记录，站内有多少人没有人知道"
)
NOBODY = "没看到人、也没有 reporting_hours 则为空"

FORMULAS: Mapping[str, str] = {
    "station": "驿站编号；一行不止一个驿站时为空",
    "unit": (
        "工会组织的编号；一行不是一个组织时为空；按工会组织（unit）时只含直属该组织的驿站，"
        "下级组织各有一行；按下级工会（branch）时含其以下全部驿站，仅所查组织本级一行只含直属驿站；没有驿站的组织没有行；"
        "驿站归属以现在为准，过去的行也一样"
    ),
    "name": "驿站或组织现在的名称；按下级工会时，与下级组织并列的（本级）只含直属该组织的驿站",
    "is_own": (
        "组织的一行：是否只含直属该组织的驿站（按工会组织时都是），而不含其以下全部驿站；"
        "一行不是一个组织时为空"
    ),
    "operating_model": "这一行的驿站由谁运营，以现在为准，过去的行也一样；其他行为空",
    "day": "当地日期，从驿站所在时区的 0:00 到 24:00；周取星期一，月取一日，即使统计期从其后开始",
    "hour": "当地小时，0 到 23",
    "weekday": "星期几，1 是星期一",
    "day_class": "按日历分为工作日、周末、法定节假日、调休工作日；没有日历数据的年份只看星期几",
    "known_share": (
        "这一行的时间中已经过去、已经统计、且驿站已登记的秒数 / 这一行时间的全部秒数；"
        "期间开始前已停用的驿站不计"
    ),
    "reported_share": (
        "驿站装有控制器的时间中，控制器有联系的占比；没有控制器则为空。占比低说明没有数据，"
        "不说明什么都没发生"
    ),
    "visits": (
        "started_at 落在这一行时间内的到访；离开后 10 分钟内返回的，并入前一次"
        "（只有同意记录的人才能认出）；为空：还什么都不知道"
    ),
    "visits_free": "其中在值守时段（free）开始的到访",
    "visits_scan": "其中在其他时段开始、且不是以控制器断网独立工作时的放行开始的到访",
    "visits_offline": (
        "到访中在值守时段以外、以控制器断网独立工作时的放行开始的；"
        "visits = visits_free + visits_scan + visits_offline"
    ),
    "persons": "这些到访的同行人数（party_size）之和",
    "returns": "离开后 10 分钟内返回、并入前一次的到访",
    "unique_workers": (
        "这些到访中同意记录的不同的人，任何时段、任何一组驿站都是精确值；按小时为空，超出保留期为空；"
        "季度或年份的名单按保留期删除后人数保留，此后才补报的人不再计入"
    ),
    "anonymous_visits": "没有同意记录的到访；这一行早于保留期时为空",
    "beyond_retention": (
        "这段时间、这些地方的人是否在统计去重人数之前已按保留期删除；驿站划出或划入的组织会重新统计"
    ),
    "out_of_hours_visits": "在值守时段以外开始的到访，按当时记下的模式",
    "offhours_share": "out_of_hours_visits / visits；没有到访则为空",
    "staffed_hours": (
        "驿站处于值守模式（free）的时间；这段时间没有任何模式记录时为空，其他与模式有关的数字也一样"
    ),
    "unstaffed_hours": "扫码时段（scan）：开放而无人值守的时间",
    "covered_hours": "值守时间中有人扫码或点数的那些小时；点数算到它涉及的每个小时",
    "heads_only_hours": (
        "covered_hours 中工作人员点了人数、而没有人扫码的那些小时：点数说明有人来过，"
        "但不算任何人在站内；在此算法之前统计的为 0"
    ),
    "free_mode_coverage": "covered_hours / staffed_hours；没有值守时间则为空",
    "night_uplift": (
        "(out_of_hours_visits / unstaffed_hours) / (visits_free / staffed_hours)；"
        "free_mode_coverage 低于 0.5 则为空，没有 unstaffed_hours 或 visits_free 也为空；"
        "多个驿站时，夜间只含扫码开门的驿站，值守时间含全部驿站"
    ),
    "walk_in_heads": (
        "工作人员点数的人数之和，不论当时是什么模式，不含已撤回的，记在开始的那天；按小时为空，"
        "head_counts 为 0 也为空：没有点数，不等于没有人；与前期比较时，只比两期都点过数的"
        "那类日子，其中没有点数的日子按没有人算：点数次数多了，人数也会多，请看 head_counts"
    ),
    "head_counts": (
        "工作人员点数的次数，所指的点数与 walk_in_heads 相同；按小时为空，"
        "其中有一部分在此算法之前统计的也为空"
    ),
    "refused": "被拒绝的扫码，每一次都算",
    "unmet_demand": (
        "不同的（人、驿站、半小时），在那半小时里被拒绝过且一次也没放行，控制器离线时也没有为其开门；"
        "离线记录一天以后才上传的，只计已同意记录者"
    ),
    "stays": (
        "看到结束的停留（本人、门磁或工作人员），含返回；不含到了别的驿站才知道已经离开的，"
        "也不含推定离开的"
    ),
    "stay_hours": "这些停留的时长之和",
    "dwell_mean_s": "stay_hours / stays，在取整之前",
    "dwell_median_s": (
        "停留时长的中位数，取整到分钟，按直方图的最近秩：取所在格的下限，误差 3.2 % 以内"
    ),
    "dwell_p90_s": "停留时长的第 90 百分位，同样用最近秩",
    "ended": "已经结束的停留，含返回",
    "imputed_exits": "其中只因时间到而视为离开的",
    "imputed_exit_share": "imputed_exits / ended；没有则为空",
    "decided": "作出决定的扫码：同意开门、直接进入或拒绝",
    "granted": "生成了开门指令的扫码",
    "walk_in": "门开着时的扫码",
    "by_reason": "被拒绝的扫码，按原因分",
    "grant_rate": "(granted + walk_in) / decided；没有扫码则为空",
    "claimed": "同意的扫码中，控制器取走了指令的",
    "executed": "同意的扫码中，继电器吸合了的",
    "open_success_rate": (
        "(executed - with_contact + opened) / granted：门上有门磁的，以门磁证实为准；"
        "没有门磁的，以继电器吸合为准；没有同意则为空"
    ),
    "refused_after_grant": (
        "同意的扫码中，指令后来被拒绝的：取令时遇到紧急关闭或疏散，或被控制器拒绝；"
        "granted = executed + refused_after_grant + failed + expired + unknown + live，"
        "其中有一部分在此算法之前统计的，后五项为空"
    ),
    "with_contact": (
        "已吸合的开门中，当时门上有门磁的，或事后有门磁证实的；没有记录的，以现在为准"
    ),
    "opened": (
        "其中门磁证实门在吸合后 15 秒内打开、或吸合时门本来就开着的；"
        "事后（如断网恢复后）才上报的也计入"
    ),
    "proven_open_rate": "opened / with_contact；没有则为空",
    "decide_p50_ms": (
        "扫码从到达服务器到作出决定的时间的中位数，用服务器的单调时钟计，按直方图的最近秩："
        "取所在格的下限，误差 3.2 % 以内；只含记录了这一时间的扫码，没有则为空"
    ),
    "decide_p95_ms": "同上，第 95 百分位，最近秩",
    "decide_p99_ms": "同上，第 99 百分位，最近秩",
    "decide_timed": "有这么多次扫码记录了决定时间，百分位由它们得出；由旧版本统计的为空",
    "pickup_p50_ms": (
        "指令从生成到被取走（claimed_at - created_at）的中位数，按直方图的最近秩：取所在格的下限，"
        "误差 3.2 % 以内"
    ),
    "pickup_p95_ms": "同上，第 95 百分位，最近秩",
    "pickup_p99_ms": "同上，第 99 百分位，最近秩",
    "pickup_timed": "有这么多条指令被取走（扫码和远程），百分位由它们得出；由旧版本统计的为空",
    "pulse_p50_ms": "已执行指令从生成到吸合（pulsed_at - created_at）的中位数，算法同上",
    "pulse_p95_ms": "已执行指令从生成到吸合（pulsed_at - created_at）的第 95 百分位，算法同上",
    "pulse_p99_ms": "已执行指令从生成到吸合（pulsed_at - created_at）的第 99 百分位，算法同上",
    "pulse_timed": "有这么多条指令已执行（扫码和远程），百分位由它们得出；由旧版本统计的为空",
    "door_p50_ms": "已执行指令从吸合到门打开（opened_at - pulsed_at）的中位数，算法同上",
    "door_p95_ms": "已执行指令从吸合到门打开（opened_at - pulsed_at）的第 95 百分位，算法同上",
    "door_p99_ms": "已执行指令从吸合到门打开（opened_at - pulsed_at）的第 99 百分位，算法同上",
    "door_timed": "有这么多条已执行指令由门磁证实门已打开，百分位由它们得出；由旧版本统计的为空",
    "alone_opened": "控制器断网独立工作时凭通行码放行的次数",
    "alone_refused": "控制器断网独立工作时拒绝的次数",
    "alone_flagged": "断网时放行、而服务器本应拒绝的次数",
    "capacity": "驿站现在的座位数，或这一行所有驿站现在的座位数，包括已停用的",
    "measured_hours": "这一行的时间中可知的小时，从第一个驿站开始到最后一个驿站为止",
    "station_hours": "每个驿站各自的可知小时之和",
    "person_hours": (
        "站内人数对时间的积分；到访在 started_at <= t < "
        "coalesce(ended_at, started_at + max_stay) 时计入"
    ),
    "used_hours": "station_hours 中至少有一人在站的小时",
    "reporting_hours": (
        "station_hours 中模式为 free 或 scan、且控制器有联系的小时；"
        "其中有一部分在此算法之前统计的，为空"
    ),
    "seat_hours": "座位数（当时的；开始记录以前取最早记录的）× 每个驿站的 reporting_hours，求和",
    "reporting_person_hours": "person_hours 中落在 reporting_hours 内的",
    "reporting_used_hours": "used_hours 中落在 reporting_hours 内的",
    "avg_occupancy": (
        "reporting_person_hours / reporting_hours：驿站开放时平均每站的站内人数；"
        f"没有 reporting_hours 则为空；{HARDLY}"
    ),
    "avg_when_used": f"reporting_person_hours / reporting_used_hours；没有则为空；{HARDLY}",
    "peak_occupancy": (
        "按驿站时钟每 15 分钟平均人数的最大值，这一行所有驿站合计"
        f"（avg_occupancy 是每站平均）；按运营模式且该模式有多个驿站时为空；{NOBODY}；{HARDLY}"
    ),
    "peak_at": "那个 15 分钟的开始；相同则取最早；峰值为空时也为空",
    "max_observed": f"任一时刻站内人数的最大值；多于一个驿站时为空；{NOBODY}；{HARDLY}",
    "seat_utilization": (
        f"reporting_person_hours / seat_hours；可能大于 100 %；没有则为空；{HARDLY}"
    ),
    "time_utilization": f"reporting_used_hours / reporting_hours；没有则为空；{HARDLY}",
    "crowded_minutes": (
        "座位占用达到 90 %（所有驿站相同）且连续 5 分钟以上的时间，跨过午夜则两边各算一段；"
        f"座位数以当时为准，开始记录以前的时间以最早记录的为准；{NOBODY}；{HARDLY}"
    ),
    "kind": "设施的种类",
    "units": "在用驿站现在有几台（件）；按时间拆分时为空",
    "uses": "已结束的使用和计量的使用，按开始时间计入",
    "open_uses": "还没有结束的使用",
    "quantity": "用量之和",
    "in_use_hours": "使用时长之和",
    "uses_per_visit": "uses / visits；没有到访则为空",
    "standing_hours": "台数 × 在场且驿站开放（free 或 scan）的时间",
    "out_of_order_hours": "其中故障的时间",
    "degraded_hours": "其中带病运行的时间",
    "unknown_hours": "其中状态未知的时间",
    "availability": "(standing_hours - out_of_order_hours) / standing_hours；没有则为空",
    "unknown_share": "unknown_hours / standing_hours；没有则为空",
    "repairs": (
        "故障之后有人报告能用（包括带病运行）的次数，计在报告之时；"
        "中间状态未知，或未知之后又报故障，仍算同一次"
    ),
    "repair_hours": (
        "这些故障的时长之和：每次从第一次报故障算起，到最后一次报故障之后第一个别的报告为止，"
        "报告状态未知也算"
    ),
    "repair_mean_min": "repair_hours / repairs",
    "repair_median_min": (
        "这些故障时长的中位数，取整到分钟，按直方图的最近秩：取所在格的下限，误差 3.2 % 以内；"
        "没有则为空，其中有一部分在此算法之前统计的也为空"
    ),
    "open_faults_over_72h": (
        "在用驿站现在处于故障状态、且这次故障开始已超过 72 小时的设施；开始时间与 repairs 相同："
        "上次报告能用（包括带病运行）之后第一次报故障之时，中间状态未知仍算同一次；按时间拆分时为空"
    ),
    "promised_hours": (
        "承诺开放的时间：按当时公布的开放时间，以及当天开始（0:00）时已公布且仍有效的特殊安排；"
        "临时改动、紧急关闭，以及当天才作、才改或才撤的安排都不改变承诺；其中有一部分在此算法之前统计的，为空"
    ),
    "usable_hours": (
        "其中模式为 free 或 scan、且控制器有联系（或 free 时工作人员点了人数）的时间；"
        "关着的不算；门的故障没有起止记录，不计"
    ),
    "promise_rate": "usable_hours / (promised_hours - unknown_hours)；没有则为空",
    "commissioned_hours": "驿站装有控制器的时间",
    "online_hours": "其中控制器有联系的时间",
    "unheard_hours": "commissioned_hours 中没有服务器在听、控制器是否在线无人知道的时间",
    "controller_uptime": "online_hours / (commissioned_hours - unheard_hours)；没有则为空",
    "outages": "已经结束的控制器中断次数",
    "outage_hours": "这些中断的时长之和",
    "mttr_min": "outage_hours / outages",
    "occupation": "到访的人自己填的职业；not_said：没有填",
    "all_visits": "所有职业的到访，含没有填的",
    "visits_share": "visits / all_visits；没有则为空",
    "told_visits": "填了职业的人的到访；not_said 被隐藏时为空",
    "occupation_share": "visits / told_visits；not_said 为空，没有也为空",
    "suppressed": (
        "是否隐藏：不同的人少于 k（含 0），或者公布后能推算出人数少的格子；"
        "几个月合计时，任一月隐藏即隐藏；一次到访都没有的月份本已公布，不隐藏"
    ),
    "k": "个人属性的数字背后至少要有的人数",
    "peer_group": (
        "运营模式和座位规模（0、1-9、10-19、20-39、40+）现在相同的全市驿站，互相比较；"
        "驿站没有登记所在区域的类型，故不按它分"
    ),
    "figure": "按哪项指标排名",
    "value": "所选指标的值，与所属报表相同",
    "visits_per_seat": "visits / capacity：人次与到访报表相同，座位数以现在为准；没有座位则为空",
    "numerator": "比率的分子；次数则为其本身",
    "denominator": "比率的分母；次数则为空",
    "peers": "同组中该指标可知、且可知时间够长（见 percentile）的其他驿站数",
    "percentile": (
        "(比它少的 + 与它相同的一半) / peers；同类少于 8 个则为空，"
        "可知的时间不到同组最高者的 0.9 也为空；控制器没有信号的时间也算不可知，"
        f"但没有信号本身就计入其中的指标除外：{'、'.join(WITH_SILENCE)}；"
        f"free_mode_coverage 低于 {COVERAGE} 时，计入自由进门者的指标也为空：{'、'.join(OF_SCANS)}"
    ),
    "rank": "1 + 比它多的同类数；percentile 为空时也为空",
    "serial": "现在这台控制器的序列号；指令是驿站的，不分哪台",
    "firmware": "接入时它自报的固件版本",
    "seen_at": "它最近一次开始或结束请求的时间",
    "online": "是否在 CONTROLLER_SILENCE_S 秒以内",
    "commands": "这段时间的开门指令",
    "live": "其中等待中或已取走的",
    "failed": "其中继电器失败的",
    "expired": "其中没有按时取走的",
    "unknown": "其中取走后没有回报的",
}
"""How each figure is computed."""

FORMULAS_OF: Mapping[tuple[str, str], str] = {
    ("ranking", "operating_model"): "驿站现在由谁运营",
    ("occupations", "visits"): (
        "这一职业的到访，算法与到访报表相同；被隐藏、超出保留期，"
        "或这一行的月份还没全部结束并统计完时为空"
    ),
    ("occupations", "persons"): "这些到访的同行人数之和；visits 为空时也为空",
    ("occupations", "unique_workers"): "这些到访中不同的人；visits 为空时也为空",
    ("occupations", "beyond_retention"): "这一行的第一个月是否已到保留期：到了则为空",
    ("promise", "unknown_hours"): (
        "承诺开放的时间中，开着而无人知道能不能用的：模式为 free 而没有控制器，或有控制器而没有"
        "服务器在听；free 时有人点数的不算，模式为 scan 而没有控制器的也不算，那时谁也进不来"
    ),
    ("promise", "unknown_share"): "unknown_hours / promised_hours；没有则为空",
    ("access", "failed"): "同意的扫码中，控制器取走了指令、但继电器失败的",
    ("access", "expired"): "同意的扫码中，指令没有控制器按时取走的",
    ("access", "unknown"): (
        "同意的扫码中，控制器取走了指令却没有回报的：门开没开无人知道；迟到的回报仍会改正"
    ),
    ("access", "live"): "同意的扫码中，统计时指令还在等待或已取走的",
    ("controllers", "executed"): "其中继电器吸合了的",
    ("controllers", "refused"): "其中因紧急关闭或被控制器拒绝的",
}
"""Where one name means another thing in one report."""
