"""A referral note about one invented patient, in English and in Chinese.

Nobody in it exists: region code 990101 belongs to no place (date and check digit of the identity number are sound),
13800138000 is a carrier's own service number that stands in manuals as a specimen, and example.com is reserved.
"""

from __future__ import annotations

ENGLISH = (
    "Patient: Lin Xiaoyu, MRN BC-2026-00417, phone +86 138 0013 8000, e-mail lin.xiaoyu@example.com. "
    "Thank you for seeing this 38-year-old woman, who found a painless lump in her right breast in early spring. "
    "On 12 March 2026 ultrasound showed an irregular, hypoechoic mass of 18 mm at ten o'clock (BI-RADS 4C) and no "
    "enlarged axillary nodes. Her identity card is 990101198707145121. Please arrange a core biopsy; she would like "
    "the result by phone. Referred by Dr. Chen Mingyuan."
)
CHINESE = (
    "患者林晓雨，女，38岁，身份证号990101198707145121，病历号BC-2026-00417，电话13800138000，"
    "邮箱lin.xiaoyu@example.com。2026年3月12日超声示右乳10点方向18毫米低回声肿块，边缘不规则（BI-RADS 4C类），"
    "腋窝未见肿大淋巴结。现由陈明远医生转诊至乳腺门诊，建议行空芯针穿刺活检，结果请电话告知林晓雨本人。"
)
REFERRAL = (ENGLISH, CHINESE)

ONE_PERSON_EACH = (("Lin Xiaoyu", "林晓雨"), ("Chen Mingyuan", "陈明远"))
"""Names that a sender knows to be one person's: give them to ``link`` and they share a stem."""
